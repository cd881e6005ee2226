//! A private PostgreSQL server on loopback, for dynamic credentials: Debian's package, a cluster of its own.
//!
//! Invariant: it has nothing to do with the machine's own cluster, runs as an ordinary user, and ends with its
//! [`Postgres`]. Its files are in a temporary directory of mode 0700.

use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::bao::free_port;
use crate::pki;
use crate::process::{ProcessError, Program, Running, Stream};
use crate::random;

/// Where Debian puts each version.
const INSTALLED: &str = "/usr/lib/postgresql";
/// Who may do everything in it.
const ADMINISTRATOR: &str = "administrator";
/// initdb takes 1 s on an idle machine.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// One statement of a client.
const ASK_DEADLINE: Duration = Duration::from_secs(20);
/// A fast shutdown.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// The server could not be started, or refused something.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// It was never installed.
    #[error("no PostgreSQL beneath {INSTALLED}: run `apt-get install postgresql`")]
    NotInstalled,
    /// It refuses to run as root, and nobody else is there.
    #[error("no user `postgres` in /etc/passwd to run it as: run `apt-get install postgresql`")]
    NoUser,
    /// Its files could not be written.
    #[error("the server's directory can't be written")]
    Files(#[from] io::Error),
    /// It did not start, or ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// initdb failed.
    #[error("initdb failed; its last lines:\n{0}")]
    Initdb(String),
    /// A client was refused.
    #[error("psql as {user} failed: {said}")]
    Refused {
        /// The role.
        user: String,
        /// What psql wrote to standard error.
        said: String,
    },
}

/// A running server.
pub struct Postgres {
    process: Running,
    programs: PathBuf,
    port: u16,
    password: String,
    _directory: TempDir,
}

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Errors
    /// It isn't installed, or does not start.
    pub async fn start() -> Result<Self, PostgresError> {
        let programs = installed().ok_or(PostgresError::NotInstalled)?;
        let user = user()?;
        let directory = tempfile::Builder::new().prefix("sotto-postgres-").tempdir()?;
        let at = directory.path();
        let (password, password_file) = (random::hex::<16>(), at.join("password"));
        pki::write_file(&password_file, &password, 0o600)?;
        if let Some((uid, gid)) = user {
            chown(at, Some(uid), Some(gid))?;
            chown(&password_file, Some(uid), Some(gid))?;
        }
        initialize(&programs, at, user).await?;
        let port = free_port()?.port();
        let settings = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"];
        let settings = settings.iter().flat_map(|setting| ["-c", setting]);
        let (data, socket, number) = (at.join("data"), at.display().to_string(), port.to_string());
        let program = Program::new("postgres", programs.join("postgres"))
            .arguments(["-D".to_owned(), data.display().to_string(), "-k".to_owned(), socket])
            .arguments(["-h", "127.0.0.1", "-p", &number])
            .arguments(settings)
            .user(user);
        let process = Running::start(program).await?;
        let ready = |line: &str| line.contains("ready to accept connections");
        process.line("the server", START_DEADLINE, ready).await?;
        Ok(Self { process, programs, port, password, _directory: directory })
    }

    /// How a store connects; it fills in the role and its password.
    #[must_use]
    pub fn connection_url(&self) -> String {
        format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }

    /// The role that may do everything, and its password.
    #[must_use]
    pub fn administrator(&self) -> (&str, &str) {
        (ADMINISTRATOR, &self.password)
    }

    /// Connects as this role with psql and runs one statement: its rows, one a line.
    ///
    /// # Errors
    /// The server refuses the role or the statement.
    pub async fn ask(
        &self,
        user: &str,
        password: &str,
        sql: &str,
    ) -> Result<String, PostgresError> {
        let port = self.port.to_string();
        let mut program = Program::new("psql", self.programs.join("psql"))
            .arguments(["-X", "-A", "-t", "-q", "-w", "-h", "127.0.0.1", "-p", &port])
            .arguments(["-d", "postgres", "-U", user, "-c", sql]);
        // Not an argument: those can be read by everybody.
        program.environment = vec![("PGPASSWORD".to_owned(), password.to_owned())];
        let psql = Running::start(program).await?;
        let status = psql.wait(ASK_DEADLINE).await?;
        let said = |stream| psql.log().lines(stream).join("\n");
        if status.success() {
            Ok(said(Stream::Output))
        } else {
            Err(PostgresError::Refused { user: user.to_owned(), said: said(Stream::Error) })
        }
    }

    /// The roles that were made by others than the cluster itself.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn roles(&self) -> Result<Vec<String>, PostgresError> {
        let sql = format!(
            "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> '{ADMINISTRATOR}'"
        );
        let rows = self.ask(ADMINISTRATOR, &self.password, &sql).await?;
        Ok(rows.lines().map(str::to_owned).collect())
    }

    /// Ends it in order, so that it leaves no shared memory behind.
    ///
    /// # Errors
    /// It does not end.
    pub async fn end(&self) -> Result<(), PostgresError> {
        self.process.signal(Signal::INT);
        self.process.wait(END_DEADLINE).await?;
        Ok(())
    }
}

async fn initialize(
    programs: &Path,
    at: &Path,
    user: Option<(u32, u32)>,
) -> Result<(), PostgresError> {
    let path = |name: &str| at.join(name).display().to_string();
    let password = format!("--pwfile={}", path("password"));
    let program = Program::new("initdb", programs.join("initdb"))
        .arguments(["-D", &path("data"), "-U", ADMINISTRATOR, &password])
        .arguments(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .user(user);
    let initdb = Running::start(program).await?;
    match initdb.wait(START_DEADLINE).await?.success() {
        true => Ok(()),
        false => Err(PostgresError::Initdb(initdb.log().tail())),
    }
}

/// The programs of the newest version that is installed.
fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir(INSTALLED).ok()?.filter_map(Result::ok);
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let with_server =
        versions.map(|entry| entry.path()).filter(|path| path.join("bin/initdb").exists());
    let newest = with_server.max_by_key(|path| number(path));
    newest.map(|path| path.join("bin"))
}

/// Whom to run it as: root must not, and the package has made a user.
fn user() -> Result<Option<(u32, u32)>, PostgresError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let line = passwd.lines().find(|line| line.starts_with("postgres:"));
    let id = |field: usize| line?.split(':').nth(field)?.parse().ok();
    match (id(2), id(3)) {
        (Some(uid), Some(gid)) => Ok(Some((uid, gid))),
        _ => Err(PostgresError::NoUser),
    }
}
