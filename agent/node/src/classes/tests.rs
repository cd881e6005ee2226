use super::*;
use tempfile::TempDir;

fn manifest(namespace: &str, name: &str, rest: &str) -> String {
    format!(
        "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\n\
         metadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n  provider: openbao\n{rest}---\n"
    )
}

struct Fixture {
    directory: TempDir,
    classes: ClassDirectory,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let classes = ClassDirectory::new(directory.path().to_owned());
    Fixture { directory, classes }
}

impl Fixture {
    fn write(&self, file: &str, text: &str) {
        fs::write(self.directory.path().join(file), text).unwrap();
    }

    async fn look_up(&self, name: &str) -> Result<Arc<SecretProviderClass>, ClassError> {
        let (namespace, name) =
            (Namespace::parse("payments").unwrap(), ClassName::parse(name).unwrap());
        self.classes.class(&namespace, &name).await
    }

    async fn faults(&self) -> Vec<String> {
        let (_, faults) = self.classes.check().await.unwrap();
        faults.iter().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn the_examples_manifest_is_read_and_its_other_objects_are_left_alone() {
    let fixture = fixture();
    fixture.write("payments.yaml", include_str!("../../../../deploy/examples/payments.yaml"));
    let class = fixture.look_up("payments-db").await.unwrap();
    assert_eq!(class.provider, "openbao");
    assert!(class.parameters["objects"].contains("objectName: db-password"));
    assert!(!class.wants_secret_objects);
    assert_eq!(fixture.classes.check().await.unwrap(), (1, Vec::new()));
}

#[tokio::test]
async fn changes_are_seen_by_the_next_look_up() {
    let fixture = fixture();
    assert!(matches!(fixture.look_up("a").await, Err(ClassError::Unknown { .. })));
    fixture.write("a.yaml", &manifest("payments", "a", "  parameters: { roleName: one }\n"));
    assert_eq!(fixture.look_up("a").await.unwrap().parameters["roleName"], "one");
    fixture.write("a.yaml", &manifest("payments", "a", "  parameters: { roleName: two }\n"));
    assert_eq!(fixture.look_up("a").await.unwrap().parameters["roleName"], "two");
    fs::remove_file(fixture.directory.path().join("a.yaml")).unwrap();
    assert!(matches!(fixture.look_up("a").await, Err(ClassError::Unknown { .. })));
}

#[tokio::test]
async fn files_that_did_not_change_are_not_read_again() {
    let fixture = fixture();
    fixture.write("a.yaml", &manifest("payments", "a", ""));
    let (first, second) =
        (fixture.look_up("a").await.unwrap(), fixture.look_up("a").await.unwrap());
    assert!(Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn one_look_does_for_those_who_asked_before_it_and_for_nobody_after() {
    let fixture = fixture();
    fixture.write("a.yaml", &manifest("payments", "a", ""));
    let began = async || fixture.classes.last.lock().await.as_ref().map(|look| look.began);
    fixture.look_up("a").await.unwrap();
    let first = began().await;
    // Two ask while nobody can look; between them somebody sees what the first of them left.
    let looking = fixture.classes.last.lock().await;
    let (one, between, two, ()) =
        tokio::join!(fixture.look_up("a"), began(), fixture.look_up("a"), async { drop(looking) });
    assert!(one.is_ok() && two.is_ok());
    assert!(between > first, "not with the look that was before they asked");
    assert_eq!(began().await, between, "there was one look");
    fixture.look_up("a").await.unwrap();
    assert!(began().await > between);
}

#[tokio::test]
async fn a_class_of_another_namespace_is_unknown() {
    let fixture = fixture();
    fixture.write("a.yaml", &manifest("shop", "a", ""));
    assert!(matches!(fixture.look_up("a").await, Err(ClassError::Unknown { .. })));
}

#[tokio::test]
async fn a_class_that_is_defined_twice_is_not_used() {
    let fixture = fixture();
    fixture.write("a.yaml", &manifest("payments", "a", ""));
    fixture.write("b.yml", &(manifest("payments", "b", "") + &manifest("payments", "a", "")));
    let error = fixture.look_up("a").await.unwrap_err().to_string();
    assert!(error.contains("defined twice, in a.yaml and in b.yml"), "{error}");
    assert!(fixture.look_up("b").await.is_ok());
    assert_eq!(fixture.faults().await.len(), 1);
}

#[tokio::test]
async fn a_manifest_that_cannot_be_used_says_why_and_hides_no_other() {
    let fixture = fixture();
    fixture.write("good.yaml", &manifest("payments", "good", ""));
    fixture.write("number.yaml", &manifest("payments", "number", "  parameters: { x: 1 }\n"));
    let error = fixture.look_up("number").await.unwrap_err();
    assert!(matches!(error, ClassError::Unusable { .. }));
    assert!(error.to_string().contains("spec.parameters.x is not text"), "{error}");
    assert!(fixture.look_up("good").await.is_ok());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_not_taken_for_an_absent_class() {
    let fixture = fixture();
    fixture.write("good.yaml", &manifest("payments", "good", ""));
    fixture.write("torn.yaml", "kind: SecretProviderClass\nmetadata: {");
    let error = fixture.look_up("torn").await.unwrap_err();
    assert!(matches!(error, ClassError::Unavailable { .. }));
    assert!(error.to_string().contains("torn.yaml"), "{error}");
    assert!(fixture.look_up("good").await.is_ok());
}

#[tokio::test]
async fn every_fault_names_its_file() {
    let fixture = fixture();
    let good = manifest("payments", "x", "");
    fixture.write("a.yaml", &good.replace("csi.x-k8s.io/v1", "csi.x-k8s.io/v1alpha1"));
    fixture.write("b.yaml", &good.replace("  namespace: payments\n", ""));
    fixture.write("c.yaml", &good.replace("name: x", "name: X_X"));
    fixture.write("d.yaml", &good.replace("  provider: openbao\n", "  parameters: {}\n"));
    fixture.write("e.yaml", "a: 1\na: 2\n");
    fixture.write("notes.txt", "not: [a manifest");
    fixture.write(".hidden.yaml", "not: [a manifest");
    let faults = fixture.faults().await;
    let wanted = [
        ("a.yaml", "apiVersion"),
        ("b.yaml", "metadata.namespace"),
        ("c.yaml", "metadata.name"),
        ("d.yaml", "spec.provider"),
        ("e.yaml", "not YAML"),
    ];
    assert_eq!(faults.len(), wanted.len(), "{faults:#?}");
    for (fault, (file, words)) in faults.iter().zip(wanted) {
        assert!(fault.starts_with(file) && fault.contains(words), "{fault}");
    }
}

#[tokio::test]
async fn a_directory_that_is_gone_is_an_outage() {
    let classes = ClassDirectory::new("/nowhere/classes".into());
    assert!(matches!(classes.check().await, Err(ClassError::Unavailable { .. })));
}
