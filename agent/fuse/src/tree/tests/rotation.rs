//! Rotations step by step, and what they refuse.

use super::*;

const POD: Caller = Caller { uid: Some(1000) };

pub(super) fn turn(tree: &Tree, next: &Arc<Snapshot>) {
    tree.stage(Arc::clone(next)).unwrap();
    let directory = next.generation().directory_name();
    tree.make_directory(ROOT_USER, ROOT_INODE, &directory).unwrap();
    tree.make_link(ROOT_USER, ROOT_INODE, NEW_DATA_LINK, &directory).unwrap();
    let (from, to) = ((ROOT_INODE, NEW_DATA_LINK), (ROOT_INODE, DATA_LINK));
    tree.rename(ROOT_USER, from, to).unwrap();
}

fn hide(tree: &Tree, number: u64) -> Result<(), TreeError> {
    let name = generation(number).directory_name();
    tree.rename(ROOT_USER, (ROOT_INODE, &name), (HIDDEN_INODE, &name))
}

#[test]
fn a_rotation_turns_at_the_rename_and_no_sooner() {
    let tree = Tree::new(snapshot(1, &[("a", "old")]));
    let old = walk(&tree, "..data").unwrap().inode;
    tree.stage(snapshot(2, &[("a", "new")])).unwrap();
    assert_eq!(walk(&tree, "..2"), Err(TreeError::NotFound));
    tree.make_directory(ROOT_USER, ROOT_INODE, "..2").unwrap();
    let made = tree.make_link(ROOT_USER, ROOT_INODE, "..data_tmp", "..2").unwrap();
    assert_eq!(walk(&tree, "..data").unwrap().inode, old);
    tree.rename(ROOT_USER, (ROOT_INODE, "..data_tmp"), (ROOT_INODE, "..data")).unwrap();
    let new = walk(&tree, "..data").unwrap().inode;
    assert_eq!(new, made.inode, "the kernel knows the renamed link by the number it was made with");
    assert_ne!(new, old, "the kernel caches a link's target by its number");
    assert_eq!(tree.read_link(new).unwrap(), "..2");
    assert_eq!(walk(&tree, "..data_tmp"), Err(TreeError::NotFound));
    assert_eq!(content(&tree, "..1/a").unwrap(), "old");
    assert_eq!(content(&tree, "..2/a").unwrap(), "new");
}

#[test]
fn nobody_but_root_and_nothing_but_what_was_announced_changes_the_volume() {
    let tree = Tree::new(snapshot(1, &[("a", "x")]));
    let refused = |result: Result<(), TreeError>| assert_eq!(result, Err(TreeError::ReadOnly));
    let mkdir = |who, name| tree.make_directory(who, ROOT_INODE, name).map(|_| ());
    let symlink = |who, name, to| tree.make_link(who, ROOT_INODE, name, to).map(|_| ());
    let commit = |who| tree.rename(who, (ROOT_INODE, "..data_tmp"), (ROOT_INODE, "..data"));
    refused(mkdir(ROOT_USER, "..2"));
    refused(symlink(ROOT_USER, "..data_tmp", "..2"));
    tree.stage(snapshot(2, &[("b", "y")])).unwrap();
    for who in [POD, Caller { uid: Some(u32::MAX) }] {
        refused(mkdir(who, "..2"));
        refused(symlink(who, "..data_tmp", "..2"));
        refused(commit(who));
        refused(tree.remove_link(who, ROOT_INODE, "a"));
        refused(tree.remove_directory(who, ROOT_INODE, "..1"));
        refused(tree.touch(who, walk(&tree, "..1/a").unwrap().inode, UNIX_EPOCH).map(|_| ()));
    }
    refused(mkdir(ROOT_USER, "..3"));
    refused(mkdir(ROOT_USER, "directory"));
    refused(symlink(ROOT_USER, "..data_tmp", "/etc"));
    refused(symlink(ROOT_USER, "b", "..data/a"));
    refused(symlink(ROOT_USER, "c", "..data/c"));
    refused(tree.remove_link(ROOT_USER, ROOT_INODE, "a"));
    refused(tree.remove_link(ROOT_USER, ROOT_INODE, "..data"));
    refused(tree.remove_directory(ROOT_USER, ROOT_INODE, "..1"));
    refused(tree.rename(ROOT_USER, (ROOT_INODE, "a"), (ROOT_INODE, "b")));
    refused(tree.rename(ROOT_USER, (ROOT_INODE, "..1"), (HIDDEN_INODE, "..1")));
    refused(tree.touch(ROOT_USER, walk(&tree, "..1/a").unwrap().inode, UNIX_EPOCH).map(|_| ()));
    let directory = walk(&tree, "..1").unwrap().inode;
    refused(tree.make_directory(ROOT_USER, directory, "..2").map(|_| ()));
    assert_eq!(tree.current().generation(), generation(1));
}

#[test]
fn each_step_may_come_twice() {
    let tree = Tree::new(snapshot(1, &[("a", "x"), ("gone", "x")]));
    let next = snapshot(2, &[("a", "y"), ("new", "y")]);
    turn(&tree, &next);
    for _ in 0..2 {
        tree.make_directory(ROOT_USER, ROOT_INODE, "..2").unwrap();
        tree.make_link(ROOT_USER, ROOT_INODE, "..data_tmp", "..2").unwrap();
        tree.rename(ROOT_USER, (ROOT_INODE, "..data_tmp"), (ROOT_INODE, "..data")).unwrap();
        tree.make_link(ROOT_USER, ROOT_INODE, "new", "..data/new").unwrap();
        tree.remove_link(ROOT_USER, ROOT_INODE, "gone").unwrap();
    }
    assert!(tree.retire(generation(1)));
    for _ in 0..2 {
        tree.remove_directory(ROOT_USER, ROOT_INODE, "..1").unwrap();
    }
    assert_eq!(tree.current().generation(), generation(2));
    let mut listed = names(&tree, ROOT_INODE);
    listed.sort();
    assert_eq!(listed, ["..2", "..data", "a", "new"]);
}

#[test]
fn a_staged_generation_can_be_replaced_until_the_kernel_knows_it() {
    let tree = Tree::new(snapshot(1, &[("a", "x")]));
    tree.stage(snapshot(2, &[("a", "y")])).unwrap();
    tree.stage(snapshot(3, &[("a", "z")])).unwrap();
    tree.make_link(ROOT_USER, ROOT_INODE, "..data_tmp", "..3").unwrap();
    let unfinished = StageError::Unfinished(generation(3));
    assert_eq!(tree.stage(snapshot(4, &[("a", "w")])), Err(unfinished));
    tree.stage(snapshot(3, &[("a", "z")])).unwrap();
    tree.rename(ROOT_USER, (ROOT_INODE, "..data_tmp"), (ROOT_INODE, "..data")).unwrap();
    let old = StageError::NotNewer(generation(2));
    assert_eq!(tree.stage(snapshot(2, &[("a", "y")])), Err(old));
    assert_eq!(content(&tree, "..3/a").unwrap(), "z");
}

#[test]
fn the_values_of_a_removed_generation_stay_until_its_last_close() {
    let tree = Tree::new(snapshot(1, &[("a", "old")]));
    let file = walk(&tree, "..1/a").unwrap().inode;
    assert_eq!(tree.open(file, false).result, Ok(OpenMode::Cached));
    assert_eq!(tree.open(file, false).result, Ok(OpenMode::Cached));
    turn(&tree, &snapshot(2, &[("a", "new")]));
    assert!(!tree.retire(generation(2)), "the current one stays");
    assert!(tree.retire(generation(1)));
    tree.remove_directory(ROOT_USER, ROOT_INODE, "..1").unwrap();
    tree.release(file);
    assert_eq!(tree.read(file, 0, 9, <[u8]>::to_vec).unwrap(), b"old");
    tree.release(file);
    assert_eq!(tree.read(file, 0, 9, <[u8]>::to_vec), Err(TreeError::Stale));
    assert_eq!(tree.generations(), [generation(2)]);
}

#[test]
fn the_names_of_a_retired_generation_can_be_removed_one_by_one() {
    let tree = Tree::new(snapshot(1, &[("a", "old"), ("d/x", "old")]));
    let file = walk(&tree, "..1/a").unwrap().inode;
    let (root, directory) =
        (walk(&tree, "..1").unwrap().inode, walk(&tree, "..1/d").unwrap().inode);
    turn(&tree, &snapshot(2, &[("a", "new")]));
    assert_eq!(tree.remove_link(ROOT_USER, root, "a"), Err(TreeError::ReadOnly), "not retired yet");
    tree.retire(generation(1));
    assert_eq!(tree.remove_link(POD, root, "a"), Err(TreeError::ReadOnly));
    assert_eq!(tree.remove_link(ROOT_USER, root, "d"), Err(TreeError::ReadOnly), "a directory");
    for _ in 0..2 {
        tree.remove_link(ROOT_USER, root, "a").unwrap();
        tree.remove_link(ROOT_USER, directory, "x").unwrap();
        tree.remove_directory(ROOT_USER, root, "d").unwrap();
    }
    assert_eq!(names(&tree, root), [""; 0]);
    assert_eq!(tree.read(file, 0, 9, <[u8]>::to_vec).unwrap(), b"old", "for who has it open");
    tree.remove_directory(ROOT_USER, ROOT_INODE, "..1").unwrap();
    let current = walk(&tree, "..2").unwrap().inode;
    assert_eq!(tree.remove_link(ROOT_USER, current, "a"), Err(TreeError::ReadOnly));
}

#[test]
fn at_most_eight_generations_keep_their_values_the_oldest_go_early() {
    let tree = Tree::new(snapshot(1, &[("a", "1")]));
    let first = walk(&tree, "..1/a").unwrap().inode;
    for number in 2..=8 {
        turn(&tree, &snapshot(number, &[("a", "n")]));
    }
    assert_eq!(tree.generations().len(), 8);
    let changed = tree.stage(snapshot(9, &[("a", "n")])).unwrap();
    assert!(changed.contains(&first), "the kernel must drop its pages");
    assert_eq!(tree.generations().len(), 7);
    assert_eq!(tree.read(first, 0, 1, |_| ()), Err(TreeError::Stale));
    assert_eq!(walk(&tree, "..1"), Err(TreeError::NotFound));
    // A subPath bind of it isn't lost: it can follow still.
    tree.follow(generation(1));
    assert_eq!(tree.read(first, 0, 1, <[u8]>::to_vec).unwrap(), b"n");
}

#[test]
fn a_hidden_generation_follows_when_told_and_not_sooner() {
    let tree = Tree::new(snapshot(1, &[("a", "one"), ("d/x", "1"), ("d/gone", "1")]));
    let (file, directory) = (walk(&tree, "..1/a").unwrap(), walk(&tree, "..1/d").unwrap());
    turn(&tree, &snapshot(2, &[("a", "two!"), ("d/x", "2"), ("d/new", "2")]));
    tree.retire(generation(1));
    hide(&tree, 1).unwrap();
    hide(&tree, 1).unwrap();
    assert_eq!(content(&tree, "..sotto/..1/a").unwrap(), "one");
    assert!(!names(&tree, HIDDEN_INODE).contains(&"..1".to_owned()));
    assert_eq!(walk(&tree, "..1"), Err(TreeError::NotFound));

    let changed = tree.follow(generation(1));
    assert!(changed.contains(&file.inode) && changed.contains(&directory.inode));
    let now = tree.attributes(file.inode).unwrap();
    assert_eq!((now.inode, now.size), (file.inode, 4));
    assert_eq!(tree.read(file.inode, 0, 9, <[u8]>::to_vec).unwrap(), b"two!");
    assert_eq!(tree.generations(), [generation(2)], "the old values are wiped");
    assert_eq!(names(&tree, directory.inode), ["x", "new"]);
    assert!(tree.lookup(directory.inode, "x").unwrap().cacheable);
    assert!(!tree.lookup(directory.inode, "new").unwrap().cacheable);
    assert_eq!(walk(&tree, "..sotto/..1/d/gone"), Err(TreeError::NotFound));

    let later = UNIX_EPOCH + Duration::from_secs(1000);
    assert_eq!(tree.touch(ROOT_USER, file.inode, later).unwrap().modified, later);
    turn(&tree, &snapshot(3, &[("a", "three")]));
    assert_eq!(tree.read(file.inode, 0, 9, <[u8]>::to_vec).unwrap(), b"two!", "the grace time");
    tree.follow(generation(1));
    assert_eq!(tree.read(file.inode, 0, 9, <[u8]>::to_vec).unwrap(), b"three");
    assert_eq!(tree.open(file.inode, false).object, Some((Arc::from("a"), generation(3))));
}

#[test]
fn a_followed_generation_stays_readable_when_its_target_goes() {
    let tree = Tree::new(snapshot(1, &[("a", "1")]));
    let file = walk(&tree, "..1/a").unwrap().inode;
    turn(&tree, &snapshot(2, &[("a", "2")]));
    tree.follow(generation(1));
    turn(&tree, &snapshot(3, &[("a", "3")]));
    tree.retire(generation(2));
    tree.remove_directory(ROOT_USER, ROOT_INODE, "..2").unwrap();
    assert_eq!(tree.read(file, 0, 9, <[u8]>::to_vec).unwrap(), b"2");
    for number in 4..=10 {
        turn(&tree, &snapshot(number, &[("a", "n")]));
    }
    assert_eq!(tree.read(file, 0, 9, <[u8]>::to_vec).unwrap(), b"n");
    assert!(tree.generations().len() <= 8);
}

#[test]
fn a_later_server_knows_the_same_inodes() {
    let tree = Tree::new(snapshot(1, &[("a", "1"), ("d/x", "1")]));
    turn(&tree, &snapshot(2, &[("a", "2"), ("d/x", "2")]));
    turn(&tree, &snapshot(3, &[("a", "3"), ("d/x", "3")]));
    tree.retire(generation(1));
    hide(&tree, 1).unwrap();
    tree.follow(generation(1));
    let paths = ["..data", "a", "..3/d/x", "..2/d/x", "..sotto/..1/d/x", "..sotto/status.json"];
    let inodes = |tree: &Tree| paths.map(|path| walk(tree, path).unwrap().inode);
    let layouts = tree.followed();
    let paths = |it: &Layout| it.paths().iter().map(ToString::to_string).collect();
    let layouts = layouts.iter().map(|it| Layout::restore(it.generation(), paths(it)));
    let (current, older) =
        (snapshot(3, &[("a", "3"), ("d/x", "3")]), snapshot(2, &[("a", "2"), ("d/x", "2")]));
    let later = Tree::restore(current, vec![older], layouts.collect());
    assert_eq!(inodes(&later), inodes(&tree));
    assert_eq!(content(&later, "..sotto/..1/a").unwrap(), "3");
    // Its predecessor may have granted opens: the values stay until they are wiped on purpose.
    later.retire(generation(2));
    later.remove_directory(ROOT_USER, ROOT_INODE, "..2").unwrap();
    assert_eq!(later.generations(), [generation(2), generation(3)]);
    assert_eq!(later.wipe(generation(2)).len(), 4);
    assert_eq!(later.generations(), [generation(3)]);
}

#[test]
fn a_later_server_lets_a_half_made_rotation_be_renamed_and_heard_of() {
    let (before, current) = (snapshot(1, &[("a", "old")]), snapshot(2, &[("a", "new")]));
    let half = || {
        let tree = Tree::restore(Arc::clone(&current), vec![Arc::clone(&before)], Vec::new());
        tree.unsettle(generation(1));
        tree
    };
    let shown = |tree: &Tree| tree.read_link(walk(tree, "..data").unwrap().inode).unwrap();
    let tree = half();
    let made = tree.make_link(ROOT_USER, ROOT_INODE, "..data_tmp", "..2").unwrap();
    let replaced = walk(&tree, "..data").unwrap().inode;
    assert_ne!(replaced, made.inode, "the kernel renames nothing over itself");
    assert_eq!(shown(&tree), "..1");
    assert_eq!(content(&tree, "..1/a").unwrap(), "old");
    assert_eq!(tree.read_link(made.inode).unwrap(), "..2", "it may have turned already");
    tree.rename(ROOT_USER, (ROOT_INODE, "..data_tmp"), (ROOT_INODE, "..data")).unwrap();
    assert_eq!(shown(&tree), "..2");

    let tree = half();
    tree.settle();
    assert_eq!(shown(&tree), "..2");

    let tree = half();
    tree.retire(generation(1));
    tree.remove_directory(ROOT_USER, ROOT_INODE, "..1").unwrap();
    assert_eq!(shown(&tree), "..2", "there is no other");
}

#[test]
fn a_server_that_has_nothing_of_the_one_before_renames_nothing_for_it() {
    let tree = Tree::new(snapshot(1, &[("a", "1")]));
    // Resent: the directory and the link were made at the server that was killed.
    let renamed = tree.rename(ROOT_USER, (ROOT_INODE, "..data_tmp"), (ROOT_INODE, "..data"));
    assert_eq!(
        renamed,
        Err(TreeError::NotFound),
        "the link would lead to a generation that is not there"
    );
    turn(&tree, &snapshot(2, &[("a", "2")]));
    assert_eq!(content(&tree, "..2/a").unwrap(), "2");
}

#[test]
fn names_of_at_most_sixty_four_generations_are_kept() {
    let tree = Tree::new(snapshot(1, &[("a", "1")]));
    for number in 2..200 {
        turn(&tree, &snapshot(number, &[("a", "n")]));
    }
    let known = (1..200).filter(|it| tree.retire(generation(*it))).count();
    assert_eq!(known, crate::tree::rotation::MAX_REMEMBERED - 1);
    assert_eq!(content(&tree, "..199/a").unwrap(), "n");
}
