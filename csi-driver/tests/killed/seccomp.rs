//! The kernel kills this process before a system call that is named.
#![expect(unsafe_code, reason = "seccomp(2) has no wrapper in rustix")]

use std::io;

use libc::{c_long, sock_filter, sock_fprog};
use rustix::process::{Resource, Rlimit, setrlimit};

/// A system call; of unlinkat the flags too.
pub(crate) struct Call {
    pub(crate) name: &'static str,
    numbers: [c_long; 2],
    flags: Option<u32>,
}

const fn one(name: &'static str, number: c_long) -> Call {
    Call { name, numbers: [number, number], flags: None }
}

const fn unlink(name: &'static str, flags: u32) -> Call {
    Call { name, numbers: [libc::SYS_unlinkat, libc::SYS_unlinkat], flags: Some(flags) }
}

/// What a publish does to the node, in its order.
pub(crate) const PUBLISH: &[Call] = &[
    one("sendmsg of Prepare", libc::SYS_sendmsg),
    one("fsopen", libc::SYS_fsopen),
    one("fsconfig", libc::SYS_fsconfig),
    one("fsmount", libc::SYS_fsmount),
    Call {
        name: "renameat of the journal's entry",
        numbers: [libc::SYS_renameat, libc::SYS_renameat2],
        flags: None,
    },
    one("mkdirat of the target", libc::SYS_mkdirat),
    one("move_mount", libc::SYS_move_mount),
];

/// What an unpublish does.
pub(crate) const UNPUBLISH: &[Call] = &[
    one("umount2", libc::SYS_umount2),
    unlink("unlinkat of the target", libc::AT_REMOVEDIR.cast_unsigned()),
    one("sendmsg of Release", libc::SYS_sendmsg),
    unlink("unlinkat of the journal's entry", 0),
];

const NUMBER_AT: u32 = 0;
/// The lower half of the third argument.
const FLAGS_AT: u32 = if cfg!(target_endian = "little") { 32 } else { 36 };
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// From now on, in all threads.
pub(crate) fn die_before(call: &Call) {
    // The kernel would dump core.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let [one, other] = call.numbers.map(|number| u32::try_from(number).unwrap());
    let mut program = vec![
        step(LOAD, 0, 0, NUMBER_AT),
        step(JUMP_IF_EQUAL, 2, 0, one),
        step(JUMP_IF_EQUAL, 1, 0, other),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    if let Some(flags) = call.flags {
        program.extend([
            step(LOAD, 0, 0, FLAGS_AT),
            step(JUMP_IF_EQUAL, 1, 0, flags),
            step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]);
    }
    program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS));
    install(&mut program).unwrap();
}

fn install(program: &mut [sock_filter]) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let length = u16::try_from(program.len()).unwrap();
    let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the program and its steps live across the call, its length is told, and the kernel copies it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
