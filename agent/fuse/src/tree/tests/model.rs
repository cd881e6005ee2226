//! The tree against a naive file system of paths, over random rotations, refusals and requests.

use super::rotation::turn;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Step {
    Rotate(Vec<(usize, String)>),
    /// Oldest first.
    Remove(usize),
    Refuse(usize, Refusal),
    Heal(usize),
    Close,
    Reopen,
    /// A pod tries to write.
    Meddle(usize),
}

const NAMES: [&str; 6] = ["a", "b", "d/x", "d/y", "d/e/z", "a-b"];

#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Directory,
    Link(String),
    File(Result<String, TreeError>),
}

#[derive(Default)]
struct Model {
    generations: BTreeMap<u64, BTreeMap<&'static str, String>>,
    current: u64,
    links: Vec<&'static str>,
    refused: BTreeMap<&'static str, Refusal>,
    closed: bool,
}

impl Model {
    fn rotate(&mut self, objects: BTreeMap<&'static str, String>) {
        self.current += 1;
        self.links = objects.keys().map(|name| name.split('/').next().unwrap()).collect();
        self.generations.insert(self.current, objects);
    }

    fn file(&self, name: &'static str, value: &str) -> Option<Shown> {
        match self.refused.get(name) {
            Some(Refusal::Gone) => None,
            Some(Refusal::Denied) => Some(Shown::File(Err(TreeError::Denied))),
            None if self.closed => Some(Shown::File(Err(TreeError::Denied))),
            None => Some(Shown::File(Ok(value.to_owned()))),
        }
    }

    fn everything(&self) -> BTreeMap<String, Shown> {
        let mut all = BTreeMap::new();
        all.insert("..data".to_owned(), Shown::Link(format!("..{}", self.current)));
        for link in &self.links {
            all.insert((*link).to_owned(), Shown::Link(format!("..data/{link}")));
        }
        for (number, objects) in &self.generations {
            let root = format!("..{number}");
            all.insert(root.clone(), Shown::Directory);
            for (name, value) in objects {
                let parts: Vec<_> = name.split('/').collect();
                for depth in 1..parts.len() {
                    let directory = format!("{root}/{}", parts[..depth].join("/"));
                    all.insert(directory, Shown::Directory);
                }
                if let Some(file) = self.file(name, value) {
                    all.insert(format!("{root}/{name}"), file);
                }
            }
        }
        all
    }
}

fn collect(tree: &Tree, directory: Inode, prefix: &str, all: &mut BTreeMap<String, Shown>) {
    for entry in tree.list(directory, 0).unwrap() {
        if entry.name == "." || entry.name == ".." {
            continue;
        }
        let path = format!("{prefix}{}", entry.name);
        let inode = entry.attributes.inode;
        assert_eq!(tree.lookup(directory, &entry.name), Ok(entry.attributes), "{path}");
        assert_eq!(tree.attributes(inode), Ok(entry.attributes), "{path}");
        let shown = match entry.attributes.kind {
            Kind::Link => Shown::Link(tree.read_link(inode).unwrap()),
            Kind::Directory => {
                collect(tree, inode, &format!("{path}/"), all);
                Shown::Directory
            }
            Kind::File => {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let content = tree.read(inode, 0, u32::MAX, text);
                assert_eq!(tree.open(inode, false).result.is_ok(), content.is_ok());
                tree.release(inode);
                Shown::File(content)
            }
        };
        all.insert(path, shown);
    }
}

fn rotate(tree: &Tree, model: &mut Model, objects: &[(usize, String)]) {
    let objects: BTreeMap<_, _> =
        objects.iter().map(|(name, value)| (NAMES[*name], value.clone())).collect();
    let list: Vec<_> = objects.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let next = snapshot(model.current + 1, &list);
    let old: Vec<String> = tree.current().links().iter().map(|link| link.name.clone()).collect();
    turn(tree, &next);
    for link in next.links() {
        let target = format!("..data/{}", link.name);
        tree.make_link(ROOT_USER, ROOT_INODE, &link.name, &target).unwrap();
    }
    for name in old.iter().filter(|name| next.links().iter().all(|link| link.name != **name)) {
        tree.remove_link(ROOT_USER, ROOT_INODE, name).unwrap();
    }
    model.rotate(objects);
    // What goes early.
    while model.generations.len() > rotation_bound() {
        model.generations.pop_first();
    }
}

fn rotation_bound() -> usize {
    crate::tree::rotation::MAX_GENERATIONS
}

fn apply(tree: &Tree, model: &mut Model, step: &Step) {
    match step {
        Step::Rotate(objects) => rotate(tree, model, objects),
        Step::Remove(which) => {
            let old: Vec<_> =
                model.generations.keys().copied().filter(|it| *it != model.current).collect();
            let Some(number) = old.get(*which) else { return };
            assert!(tree.retire(generation(*number)));
            tree.remove_directory(ROOT_USER, ROOT_INODE, &format!("..{number}")).unwrap();
            model.generations.remove(number);
        }
        Step::Refuse(name, how) => {
            tree.refuse(&path(NAMES[*name]), *how);
            model.refused.insert(NAMES[*name], *how);
        }
        Step::Heal(name) => {
            tree.heal(&path(NAMES[*name]));
            model.refused.remove(NAMES[*name]);
        }
        Step::Close => {
            tree.close();
            model.closed = true;
        }
        Step::Reopen => {
            tree.reopen();
            model.closed = false;
        }
        Step::Meddle(name) => {
            let pod = Caller { uid: Some(1000) };
            let name = NAMES[*name];
            assert!(tree.make_directory(pod, ROOT_INODE, name).is_err());
            assert!(tree.remove_link(pod, ROOT_INODE, name).is_err());
            assert!(tree.remove_directory(pod, ROOT_INODE, "..1").is_err());
        }
    }
}

fn objects() -> impl Strategy<Value = Vec<(usize, String)>> {
    proptest::collection::vec((0..NAMES.len(), "[a-z]{0,8}"), 1..6)
}

fn step() -> impl Strategy<Value = Step> {
    let refusal = prop_oneof![Just(Refusal::Denied), Just(Refusal::Gone)];
    prop_oneof![
        4 => objects().prop_map(Step::Rotate),
        2 => (0_usize..8).prop_map(Step::Remove),
        1 => (0..NAMES.len(), refusal).prop_map(|(name, how)| Step::Refuse(name, how)),
        1 => (0..NAMES.len()).prop_map(Step::Heal),
        1 => Just(Step::Close),
        1 => Just(Step::Reopen),
        1 => (0..NAMES.len()).prop_map(Step::Meddle),
    ]
}

proptest! {
    #[test]
    fn the_tree_shows_what_a_naive_file_system_would(
        first in objects(),
        steps in proptest::collection::vec(step(), 0..24),
    ) {
        let mut model = Model::default();
        let first: BTreeMap<_, _> =
            first.iter().map(|(name, value)| (NAMES[*name], value.clone())).collect();
        let list: Vec<_> = first.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let tree = Tree::new(snapshot(1, &list));
        model.rotate(first);
        for step in &steps {
            apply(&tree, &mut model, step);
            let mut shown = BTreeMap::new();
            collect(&tree, ROOT_INODE, "", &mut shown);
            prop_assert_eq!(&shown, &model.everything());
        }
    }
}
