//! The session that connects by itself, and one request's way: wait for a connection, prepare, send, send again.
//!
//! What a failure means: as long as nothing was sent, NOT_SENT.  A write that was sent and has no clear answer (timeout, a
//! connection that broke) is UNCERTAIN, and is sent again until its time is over: every write of the history is idempotent,
//! so a clear answer to any of them settles all.
use crate::values::{Row, Rows};
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::client::PoolSize;
use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError};
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::reconnect::ExponentialReconnectPolicy;
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::response::PagingState;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;
use scylla::statement::{Consistency, SerialConsistency};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout, timeout_at, Instant};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Longer than a server takes to say itself that it timed out (2 s and a little).
const ATTEMPT: Duration = Duration::from_millis(3000);
/// Tables take long; and nodes that have just met refuse them now and then.
const SCHEMA_ATTEMPT: Duration = Duration::from_secs(30);
const SCHEMA_TRIES: u32 = 6;
const CONNECT: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Status {
    Ok = 0,
    NotSent = 1,
    Uncertain = 2,
    Refused = 3,
    NoSchema = 4,
}

pub struct Failure {
    pub status: Status,
    pub text: String,
}

pub struct Config {
    pub hosts: Vec<String>,
    pub user: Option<(String, String)>,
    pub datacenter: Option<String>,
    pub keyspace: String,
    pub local: bool,
    pub statements: Vec<String>,
}

/// What of a request is known once it is answered.
pub struct Request {
    pub calls: Vec<(usize, Row)>, // (statement, values); none: `text` alone
    pub text: Option<String>,
    pub paging: Vec<u8>,
    pub page_size: i32,
    pub write: bool,
    pub fail_fast: bool,
    pub deadline: Instant,
}

#[derive(Clone)]
enum Link {
    Connecting { attempts: u64, failed: Option<String> },
    Up(Arc<Session>),
}

pub struct Client {
    config: Config,
    link: watch::Sender<Link>,
    prepared: Vec<Mutex<Option<Arc<PreparedStatement>>>>,
    down: AtomicBool,
    pub reconnections: AtomicU64,
    jitter: AtomicU64,
}

/// The cause alone, where the crate tells the whole way to it.
fn cause(text: String) -> String {
    match text.rfind("failed with: ") {
        Some(at) => text[at + "failed with: ".len()..].to_string(),
        None => text,
    }
}

fn is_password(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("authenticat") || text.contains("credentials") || text.contains("password")
}

/// Of an error that came while nothing was sent yet.
fn not_sent(text: String) -> Failure {
    let text = cause(text);
    let status = if is_password(&text) { Status::Refused } else { Status::NotSent };
    Failure { status, text }
}

enum Verdict {
    /// Nothing arrived: a connection is missing.
    Disconnected,
    /// The server says that nothing was done.
    Declined(Status),
    /// It may have been done.
    Unclear,
}

fn of_server(e: &DbError, text: &str, write: bool) -> Verdict {
    match e {
        // Too few replicas for the first step of a conditional write, or for a read or a plain write: nothing was done.
        // With another consistency it is the commit of a conditional write that found too few.
        DbError::Unavailable { consistency, .. } => match consistency {
            Consistency::Serial | Consistency::LocalSerial => Verdict::Declined(Status::NotSent),
            _ if write => Verdict::Unclear,
            _ => Verdict::Declined(Status::NotSent),
        },
        DbError::Overloaded | DbError::IsBootstrapping => Verdict::Disconnected,
        DbError::AuthenticationError | DbError::Unauthorized => Verdict::Declined(Status::Refused),
        DbError::Invalid | DbError::ConfigError | DbError::SyntaxError => {
            let schema =
                ["unconfigured table", "does not exist", "Undefined column", "Unknown identifier", "nconfigured"];
            Verdict::Declined(if schema.iter().any(|s| text.contains(s)) { Status::NoSchema } else { Status::Refused })
        }
        DbError::AlreadyExists { .. } => Verdict::Declined(Status::Refused),
        _ => Verdict::Unclear,
    }
}

fn judge(e: &ExecutionError, write: bool) -> Verdict {
    match e {
        ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_) => Verdict::Disconnected,
        ExecutionError::BadQuery(_) => Verdict::Declined(Status::Refused),
        ExecutionError::LastAttemptError(a) => match a {
            RequestAttemptError::DbError(d, text) => of_server(d, text, write),
            RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => {
                Verdict::Declined(Status::Refused)
            }
            RequestAttemptError::UnableToAllocStreamId => Verdict::Disconnected,
            _ => Verdict::Unclear,
        },
        _ => Verdict::Unclear,
    }
}

impl Client {
    pub fn new(config: Config) -> Client {
        let prepared = config.statements.iter().map(|_| Mutex::new(None)).collect();
        let link = watch::Sender::new(Link::Connecting { attempts: 0, failed: None });
        Client {
            config,
            link,
            prepared,
            down: AtomicBool::new(false),
            reconnections: AtomicU64::new(0),
            jitter: AtomicU64::new(std::process::id() as u64 | 1),
        }
    }

    /// 0.75 to 1.25 of `d`, so that many do not come at once.
    fn jittered(&self, d: Duration) -> Duration {
        let x = self.jitter.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let x = (x ^ (x >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        d.mul_f64(0.75 + (x >> 40) as f64 / (1u64 << 24) as f64 * 0.5)
    }

    fn consistency(&self) -> (Consistency, SerialConsistency) {
        if self.config.local {
            (Consistency::LocalQuorum, SerialConsistency::LocalSerial)
        } else {
            (Consistency::Quorum, SerialConsistency::Serial)
        }
    }

    async fn build(&self) -> Result<Session, String> {
        let (consistency, serial) = self.consistency();
        let mut policy = DefaultPolicy::builder().token_aware(true);
        if let Some(dc) = &self.config.datacenter {
            policy = policy.prefer_datacenter(dc.clone()).permit_dc_failover(!self.config.local);
        }
        let profile = ExecutionProfile::builder()
            .consistency(consistency)
            .serial_consistency(Some(serial))
            .load_balancing_policy(policy.build())
            .retry_policy(Arc::new(FallthroughRetryPolicy)) // what is sent again, and when, is decided here
            .request_timeout(None)
            .build();
        let mut builder = SessionBuilder::new()
            .known_nodes(&self.config.hosts)
            .pool_size(PoolSize::PerHost(NonZeroUsize::MIN))
            .connection_timeout(CONNECT)
            .keepalive_interval(Duration::from_secs(2))
            .keepalive_timeout(Duration::from_secs(3))
            .tcp_nodelay(true)
            .disallow_shard_aware_port(true)
            .keyspaces_to_fetch([self.config.keyspace.clone()])
            .schema_agreement_timeout(Duration::from_secs(20))
            .default_execution_profile_handle(profile.into_handle());
        builder.config.reconnect_policy =
            Arc::new(ExponentialReconnectPolicy::new().with_backoff_limits(BACKOFF_MIN, BACKOFF_MAX));
        if let Some((user, password)) = &self.config.user {
            builder = builder.user(user.clone(), password.clone());
        }
        builder.build().await.map_err(|e| e.to_string())
    }

    /// Connect for the first time, however long it takes; later the crate's pools reconnect by themselves.
    pub async fn connect(self: Arc<Self>) {
        let mut backoff = BACKOFF_MIN;
        for attempts in 1.. {
            match self.build().await {
                Ok(session) => {
                    let session = Arc::new(session);
                    self.link.send_replace(Link::Up(session.clone()));
                    for i in 0..self.prepared.len() {
                        // ahead of its first use; what fails (no schema yet) is prepared then
                        if timeout(ATTEMPT, self.prepare(&session, i)).await.map_or(true, |p| p.is_err()) {
                            return;
                        }
                    }
                    return;
                }
                Err(text) => self.link.send_replace(Link::Connecting { attempts, failed: Some(text) }),
            };
            sleep(self.jittered(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// fail_fast: an attempt that began after this call has to fail first.
    async fn session(&self, request: &Request) -> Result<Arc<Session>, Failure> {
        let mut link = self.link.subscribe();
        let mut seen: Option<u64> = None;
        let mut last = String::from("no answer in time");
        loop {
            match &*link.borrow_and_update() {
                Link::Up(session) => return Ok(session.clone()),
                Link::Connecting { attempts, failed } => {
                    if let Some(text) = failed {
                        last = text.clone();
                    }
                    let first = *seen.get_or_insert(*attempts);
                    if request.fail_fast && failed.is_some() && *attempts > first {
                        return Err(not_sent(last));
                    }
                }
            }
            if timeout_at(request.deadline, link.changed()).await.is_err() {
                return Err(not_sent(last));
            }
        }
    }

    async fn prepare(&self, session: &Session, i: usize) -> Result<Arc<PreparedStatement>, PrepareError> {
        if let Some(p) = self.prepared[i].lock().unwrap().as_ref() {
            return Ok(p.clone());
        }
        let p = Arc::new(session.prepare(self.config.statements[i].as_str()).await?);
        *self.prepared[i].lock().unwrap() = Some(p.clone());
        Ok(p)
    }

    async fn prepare_all(&self, session: &Session, r: &Request) -> Result<Vec<Arc<PreparedStatement>>, ExecutionError> {
        let mut out = Vec::with_capacity(r.calls.len());
        for (i, _) in &r.calls {
            out.push(self.prepare(session, *i).await?);
        }
        Ok(out)
    }

    async fn send(
        &self,
        session: &Session,
        r: &Request,
        prepared: &[Arc<PreparedStatement>],
    ) -> Result<Result<Rows, String>, ExecutionError> {
        if let Some(text) = &r.text {
            return session.query_unpaged(Statement::new(text.as_str()), ()).await.map(Rows::of);
        }
        if prepared.len() > 1 {
            let (consistency, serial) = self.consistency();
            let list = prepared.iter().map(|p| BatchStatement::PreparedStatement((**p).clone())).collect();
            let mut batch = Batch::new_with_statements(BatchType::Unlogged, list);
            batch.set_consistency(consistency);
            batch.set_serial_consistency(Some(serial));
            let values: Vec<&Row> = r.calls.iter().map(|(_, row)| row).collect();
            return session.batch(&batch, values).await.map(Rows::of);
        }
        let mut statement = (*prepared[0]).clone();
        if r.page_size > 0 {
            statement.set_page_size(r.page_size);
        }
        let paging =
            if r.paging.is_empty() { PagingState::start() } else { PagingState::new_from_raw_bytes(&r.paging[..]) };
        let (answer, next) = session.execute_single_page(&statement, &r.calls[0].1, paging).await?;
        Ok(Rows::of(answer).map(|mut rows| {
            if let ControlFlow::Continue(state) = next.into_paging_control_flow() {
                rows.more = true;
                rows.paging = state.as_bytes_slice().map(|b| b.to_vec()).unwrap_or_default();
            }
            rows
        }))
    }

    fn answered(&self) {
        if self.down.swap(false, Ordering::Relaxed) {
            self.reconnections.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One attempt: prepared, sent and answered, or why not; `sent`: it left this process.
    async fn attempt(&self, session: &Session, r: &Request, sent: &mut bool) -> Result<Rows, (Verdict, String)> {
        let limit = if r.text.is_some() { SCHEMA_ATTEMPT } else { ATTEMPT };
        let end = r.deadline.min(Instant::now() + limit);
        let prepared = match timeout_at(end, self.prepare_all(session, r)).await {
            Err(_) => return Err((Verdict::Disconnected, "no answer in time".into())),
            Ok(Err(e)) => {
                let text = e.to_string();
                let verdict = if let ExecutionError::PrepareError(p) = &e { of_prepare(p) } else { judge(&e, false) };
                return Err((if let Verdict::Unclear = verdict { Verdict::Disconnected } else { verdict }, text));
            }
            Ok(Ok(p)) => p,
        };
        match timeout_at(end, self.send(session, r, &prepared)).await {
            Err(_) => {
                *sent = true;
                Err((Verdict::Unclear, "no answer in time".into()))
            }
            Ok(Err(e)) => {
                let verdict = judge(&e, r.write);
                *sent = !matches!(verdict, Verdict::Disconnected);
                Err((verdict, e.to_string()))
            }
            Ok(Ok(Err(text))) => Err((Verdict::Declined(Status::Refused), text)),
            Ok(Ok(Ok(rows))) => Ok(rows),
        }
    }

    pub async fn run(&self, r: Request) -> Result<Rows, Failure> {
        let session = self.session(&r).await?;
        let mut backoff = BACKOFF_MIN;
        let mut doubt = false; // a write of ours may have landed
        let mut tries = 0;
        loop {
            let mut sent = false;
            let (verdict, text) = match self.attempt(&session, &r, &mut sent).await {
                Ok(rows) => {
                    self.answered();
                    return Ok(rows);
                }
                Err(e) => e,
            };
            tries += 1;
            match verdict {
                Verdict::Declined(_) if r.text.is_some() && tries < SCHEMA_TRIES && !is_password(&text) => (),
                Verdict::Declined(status) => {
                    self.answered();
                    let unsettled = doubt && status == Status::NotSent;
                    return Err(Failure { status: if unsettled { Status::Uncertain } else { status }, text });
                }
                Verdict::Disconnected => self.down.store(true, Ordering::Relaxed),
                Verdict::Unclear => {
                    doubt |= r.write && sent;
                    if text.contains("onnection") {
                        self.down.store(true, Ordering::Relaxed);
                    }
                }
            }
            let pause = self.jittered(backoff);
            if (r.fail_fast && !doubt) || Instant::now() + pause >= r.deadline {
                if !doubt && !r.fail_fast {
                    tokio::time::sleep_until(r.deadline).await; // it waits for a connection until its time is over
                }
                return Err(if doubt {
                    Failure { status: Status::Uncertain, text: cause(text) }
                } else {
                    not_sent(text)
                });
            }
            sleep(pause).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

fn of_prepare(e: &PrepareError) -> Verdict {
    match e {
        PrepareError::AllAttemptsFailed { first_attempt: RequestAttemptError::DbError(d, text) } => {
            of_server(d, text, false)
        }
        _ => Verdict::Disconnected,
    }
}
