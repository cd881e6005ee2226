//! What `stat` says about each inode.

use std::time::SystemTime;

use sotto_core::snapshot::{DATA_LINK, HIDDEN_INODE, Inode, NodeKind, ROOT_INODE, STATUS_INODE};

use super::state::{Resolved, State, Target};

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
}

/// What `stat` says, where it isn't the same for all: the owner is uid 0, the number of links 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The inode's number.
    pub inode: Inode,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file's content or of a link's target.
    pub size: u64,
    /// Permission bits.
    pub mode: u16,
    /// The volume's group.
    pub gid: u32,
    /// Time of the last change.
    pub modified: SystemTime,
    /// Whether the kernel may keep it, and the name that led here, until it is told otherwise.
    pub cacheable: bool,
}

const DIRECTORY_MODE: u16 = 0o755;
const LINK_MODE: u16 = 0o777;
const STATUS_MODE: u16 = 0o444;

impl State {
    pub(super) fn attributes(&self, target: &Target) -> Attributes {
        match target {
            Target::Root => self.directory(ROOT_INODE),
            Target::Hidden => self.directory(HIDDEN_INODE),
            Target::Status => Attributes {
                inode: STATUS_INODE,
                kind: Kind::File,
                size: self.status.bytes.len() as u64,
                mode: STATUS_MODE,
                modified: self.status.changed,
                cacheable: false,
                ..self.directory(STATUS_INODE)
            },
            Target::DataLink(generation) => {
                let target = generation.directory_name();
                self.link(Inode::of_data_link(*generation), target.len())
            }
            Target::Link(name) => self.link(Inode::of_link(name), DATA_LINK.len() + 1 + name.len()),
            Target::Node(node) => self.node(node),
        }
    }

    fn directory(&self, inode: Inode) -> Attributes {
        Attributes {
            inode,
            kind: Kind::Directory,
            size: 0,
            mode: DIRECTORY_MODE,
            gid: self.current.group(),
            modified: self.current.created(),
            cacheable: true,
        }
    }

    fn link(&self, inode: Inode, bytes: usize) -> Attributes {
        let directory = self.directory(inode);
        Attributes { kind: Kind::Link, size: bytes as u64, mode: LINK_MODE, ..directory }
    }

    fn node(&self, resolved: &Resolved) -> Attributes {
        let created = resolved.snapshot.created();
        let touched = self.touched.get(&resolved.inode).copied();
        let common = Attributes {
            gid: resolved.snapshot.group(),
            modified: touched.map_or(created, |touched| touched.max(created)),
            cacheable: !resolved.fleeting,
            ..self.directory(resolved.inode)
        };
        match &resolved.node().kind {
            NodeKind::Directory(_) => common,
            NodeKind::File { mode, content } => Attributes {
                kind: Kind::File,
                size: self.refusals.size(&resolved.node().path, content.len() as u64),
                mode: mode.bits(),
                ..common
            },
        }
    }
}
