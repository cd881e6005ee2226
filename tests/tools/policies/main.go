// Evaluates a ValidatingAdmissionPolicy with the API server's own code: the policy as JSON in a file, one case a
// line on standard input, one answer a line on standard output. Called by tests/tools/check-policies.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	v1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apicel "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
)

// The oldest Kubernetes that deploy/README.md names.
const oldest = "1.32"

type request struct {
	Operation, Namespace string
	Object               corev1.Pod
	Params               *corev1.ConfigMap
}

type policy struct {
	spec            v1.ValidatingAdmissionPolicySpec
	match, deciders cel.ConditionEvaluator
}

func compile(spec v1.ValidatingAdmissionPolicySpec) (policy, []error) {
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(version.MustParse(oldest), true))
	if err != nil {
		return policy{}, []error{err}
	}
	declared := cel.OptionalVariableDeclarations{HasParams: spec.ParamKind != nil, HasAuthorizer: true, StrictCost: true}
	var errors []error
	for _, each := range spec.Variables {
		variable := validating.Variable{Name: each.Name, Expression: each.Expression}
		if result := compiler.CompileAndStoreVariable(&variable, declared, environment.NewExpressions); result.Error != nil {
			errors = append(errors, fmt.Errorf("variable %s: %v", each.Name, result.Error))
		}
	}
	var conditions, validations []cel.ExpressionAccessor
	for i := range spec.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&spec.MatchConditions[i]))
	}
	for _, each := range spec.Validations {
		validations = append(validations, &validating.ValidationCondition{Expression: each.Expression, Message: each.Message})
	}
	match := compiler.CompileCondition(conditions, declared, environment.NewExpressions)
	deciders := compiler.CompileCondition(validations, declared, environment.NewExpressions)
	errors = append(append(errors, match.CompilationErrors()...), deciders.CompilationErrors()...)
	return policy{spec, match, deciders}, errors
}

func (p policy) denials(asked *request) ([]string, error) {
	kind := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	pods := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	attributes := admission.NewAttributesRecord(&asked.Object, nil, kind, asked.Namespace, asked.Object.Name, pods, "",
		admission.Operation(asked.Operation), nil, false, &user.DefaultInfo{})
	versioned := &admission.VersionedAttributes{Attributes: attributes, VersionedObject: &asked.Object, VersionedKind: kind}
	review := cel.CreateAdmissionRequest(attributes, metav1.GroupVersionResource(pods), metav1.GroupVersionKind(kind))
	var params runtime.Object
	if asked.Params != nil {
		params = asked.Params
	}
	bound := cel.OptionalVariableBindings{VersionedParams: params}
	denials := []string{}
	for _, evaluator := range []cel.ConditionEvaluator{p.match, p.deciders} {
		results, _, err := evaluator.ForInput(context.Background(), versioned, review, bound, nil, apicel.RuntimeCELCostBudget)
		if err != nil {
			return nil, err
		}
		for i, result := range results {
			switch {
			case result.Error != nil:
				return nil, result.Error
			case result.EvalResult.Value() == true:
			case evaluator == p.match:
				return denials, nil
			default:
				denials = append(denials, p.spec.Validations[i].Message)
			}
		}
	}
	return denials, nil
}

func run() error {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	var object v1.ValidatingAdmissionPolicy
	if err := json.Unmarshal(text, &object); err != nil {
		return err
	}
	compiled, errors := compile(object.Spec)
	if len(errors) > 0 {
		return fmt.Errorf("%v", errors)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		denials, err := compiled.denials(&asked)
		if err != nil {
			return err
		}
		answer, _ := json.Marshal(denials)
		fmt.Println(string(answer))
	}
	return lines.Err()
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
