//! The checked-in code is what the `.proto` files generate, with no protoc on the machine.

use std::path::Path;

const PROTOS: &[&str] = &[
    "csi/v1/csi.proto",
    "deposit/v1/deposit.proto",
    "handoff/v1/handoff.proto",
    "provider/v1alpha1/provider.proto",
    "registration/v1/registration.proto",
];
const FILES: &[&str] = &[
    "csi.v1.rs",
    "sotto.deposit.v1.rs",
    "sotto.handoff.v1.rs",
    "v1alpha1.rs",
    "pluginregistration.rs",
];
/// Messages that carry tokens or secrets: `src/redacted.rs` writes their `Debug`.
const SECRET: &[&str] = &[
    ".csi.v1.NodePublishVolumeRequest",
    ".csi.v1.NodeStageVolumeRequest",
    ".csi.v1.NodeExpandVolumeRequest",
    ".sotto.handoff.v1.Prepare",
    ".sotto.handoff.v1.Token",
    ".sotto.handoff.v1.Returned",
    ".sotto.deposit.v1.Volume",
    ".sotto.deposit.v1.Object",
    ".sotto.deposit.v1.Lease",
    ".sotto.deposit.v1.Generation",
    ".v1alpha1.MountRequest",
    ".v1alpha1.File",
];

fn generate(into: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos: Vec<_> = PROTOS.iter().map(|proto| root.join(proto)).collect();
    let descriptors = protox::compile(protos, [root]).expect("the .proto files compile");
    tonic_prost_build::configure()
        .out_dir(into)
        .skip_debug(SECRET)
        .btree_map(".")
        .compile_fds(descriptors)
        .expect("code can be generated");
}

#[test]
fn generated_code_is_current() {
    let fresh = tempfile::tempdir().expect("a temporary directory");
    generate(fresh.path());
    let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    let update = std::env::var_os("SOTTO_UPDATE_GENERATED").is_some();
    for file in FILES {
        let new = std::fs::read(fresh.path().join(file)).expect("generated");
        if update {
            std::fs::write(checked_in.join(file), &new).expect("src/gen can be written");
        }
        let old = std::fs::read(checked_in.join(file)).unwrap_or_default();
        assert!(
            old == new,
            "{file} is out of date: run SOTTO_UPDATE_GENERATED=1 cargo test -p sotto-proto"
        );
    }
}
