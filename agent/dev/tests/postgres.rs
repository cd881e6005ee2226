//! The private PostgreSQL server.

use sotto_dev::postgres::{Postgres, PostgresError};

#[tokio::test]
async fn it_lets_in_whoever_has_the_password_and_nobody_else() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let (user, password) = postgres.administrator();
    assert_eq!(postgres.ask(user, password, "SELECT 1 + 1").await?, "2");
    let refused = postgres.ask(user, "guessed", "SELECT 1").await;
    assert!(matches!(refused, Err(PostgresError::Refused { .. })));
    assert_eq!(postgres.roles().await?, Vec::<String>::new());
    postgres.ask(user, password, "CREATE ROLE somebody LOGIN").await?;
    assert_eq!(postgres.roles().await?, ["somebody"]);
    Ok(postgres.end().await?)
}
