//! cql - Cassandra for C: see cql.h, which says what each function here promises.
//!
//! A runtime of one thread does the talking; answers wait in a queue beside an eventfd that the caller's loop polls.
mod session;
mod values;

use session::{Client, Config, Failure, Request, Status};
use std::collections::VecDeque;
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use values::{Cell, Row, Rows};

#[repr(C)]
pub struct CqlConfig {
    hosts: *const *const c_char,
    hosts_n: usize,
    user: *const c_char,
    password: *const c_char,
    datacenter: *const c_char,
    keyspace: *const c_char,
    local: bool,
    statements: *const *const c_char,
    statements_n: usize,
}

#[repr(C)]
pub struct CqlCall {
    statement: u32,
    n: u32,
    values: *const Cell,
}

#[repr(C)]
pub struct CqlRequest {
    calls: *const CqlCall,
    calls_n: usize,
    text: *const c_char,
    paging: *const u8,
    paging_len: usize,
    page_size: i32,
    timeout_ms: u32,
    write: bool,
    fail_fast: bool,
}

#[repr(C)]
pub struct CqlDone {
    ctx: *mut c_void,
    status: c_int,
    rows: *mut Rows,
    error: *mut c_char,
}
unsafe impl Send for CqlDone {}

struct Answers {
    fd: c_int,
    queue: Mutex<VecDeque<CqlDone>>,
}
impl Answers {
    fn push(&self, done: CqlDone) {
        let mut queue = self.queue.lock().unwrap();
        queue.push_back(done);
        let one: u64 = 1;
        unsafe { libc::write(self.fd, &one as *const u64 as *const c_void, 8) };
    }
}
impl Drop for Answers {
    fn drop(&mut self) {
        for mut done in self.queue.lock().unwrap().drain(..) {
            unsafe { cql_done_free(&mut done) };
        }
        unsafe { libc::close(self.fd) };
    }
}

pub struct Cql {
    runtime: tokio::runtime::Runtime,
    client: Arc<Client>,
    answers: Arc<Answers>,
}

unsafe fn text(p: *const c_char) -> Option<String> {
    (!p.is_null()).then(|| CStr::from_ptr(p).to_string_lossy().into_owned())
}

unsafe fn list(p: *const *const c_char, n: usize) -> Vec<String> {
    (0..n).filter_map(|i| text(*p.add(i))).collect()
}

/// # Safety
/// As cql.h says.
#[no_mangle]
pub unsafe extern "C" fn cql_open(config: *const CqlConfig) -> *mut Cql {
    let c = &*config;
    let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
    if fd < 0 {
        return std::ptr::null_mut();
    }
    let answers = Arc::new(Answers { fd, queue: Mutex::new(VecDeque::new()) });
    let Ok(runtime) =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().thread_name("cassandra").build()
    else {
        return std::ptr::null_mut();
    };
    let client = Arc::new(Client::new(Config {
        hosts: list(c.hosts, c.hosts_n),
        user: text(c.user).map(|u| (u, text(c.password).unwrap_or_default())),
        datacenter: text(c.datacenter),
        keyspace: text(c.keyspace).unwrap_or_default(),
        local: c.local,
        statements: list(c.statements, c.statements_n),
    }));
    runtime.spawn(client.clone().connect());
    Box::into_raw(Box::new(Cql { runtime, client, answers }))
}

/// # Safety
/// As cql.h says.
#[no_mangle]
pub unsafe extern "C" fn cql_close(cql: *mut Cql) {
    if !cql.is_null() {
        let Cql { runtime, client, answers } = *Box::from_raw(cql);
        runtime.shutdown_timeout(Duration::from_secs(2));
        drop(client);
        drop(answers);
    }
}

/// # Safety
/// As cql.h says.
#[no_mangle]
pub unsafe extern "C" fn cql_fd(cql: *const Cql) -> c_int {
    let cql = &*cql;
    cql.answers.fd
}

/// # Safety
/// As cql.h says.
#[no_mangle]
pub unsafe extern "C" fn cql_reconnections(cql: *const Cql) -> u64 {
    let cql = &*cql;
    cql.client.reconnections.load(Ordering::Relaxed)
}

/// # Safety
/// As cql.h says.
#[no_mangle]
pub unsafe extern "C" fn cql_execute(cql: *const Cql, request: *const CqlRequest, ctx: *mut c_void) {
    let (cql, r) = (&*cql, &*request);
    let mut calls = Vec::with_capacity(r.calls_n);
    for i in 0..r.calls_n {
        let call = &*r.calls.add(i);
        let values = if call.n == 0 { &[][..] } else { std::slice::from_raw_parts(call.values, call.n as usize) };
        calls.push((call.statement as usize, Row::copied(values)));
    }
    let paging =
        if r.paging_len == 0 { Vec::new() } else { std::slice::from_raw_parts(r.paging, r.paging_len).to_vec() };
    let request = Request {
        calls,
        text: text(r.text),
        paging,
        page_size: r.page_size,
        write: r.write,
        fail_fast: r.fail_fast,
        deadline: Instant::now() + Duration::from_millis(r.timeout_ms.into()),
    };
    let (client, answers, ctx) = (cql.client.clone(), cql.answers.clone(), ctx as usize);
    cql.runtime.spawn(async move {
        let outcome = client.run(request).await;
        let ctx = ctx as *mut c_void;
        answers.push(match outcome {
            Ok(rows) => CqlDone {
                ctx,
                status: Status::Ok as c_int,
                rows: Box::into_raw(Box::new(rows)),
                error: std::ptr::null_mut(),
            },
            Err(Failure { status, text }) => {
                let error = CString::new(text.replace('\0', " ")).unwrap_or_default().into_raw();
                CqlDone { ctx, status: status as c_int, rows: std::ptr::null_mut(), error }
            }
        });
    });
}

/// # Safety
/// As cql.h says.
#[no_mangle]
pub unsafe extern "C" fn cql_poll(cql: *const Cql, out: *mut CqlDone, max: usize) -> usize {
    let answers = &(*cql).answers;
    let mut queue = answers.queue.lock().unwrap();
    let mut count = 0u64;
    libc::read(answers.fd, &mut count as *mut u64 as *mut c_void, 8);
    let n = queue.len().min(max);
    for (i, done) in queue.drain(..n).enumerate() {
        out.add(i).write(done);
    }
    if !queue.is_empty() {
        let one: u64 = 1;
        libc::write(answers.fd, &one as *const u64 as *const c_void, 8);
    }
    n
}

/// # Safety
/// As cql.h says.
#[no_mangle]
pub unsafe extern "C" fn cql_rows(rows: *const Rows) -> usize {
    if rows.is_null() {
        0
    } else {
        (*rows).rows
    }
}

/// # Safety
/// As cql.h says.
#[no_mangle]
pub unsafe extern "C" fn cql_column(rows: *const Rows, name: *const c_char) -> c_int {
    let name = CStr::from_ptr(name).to_bytes();
    (*rows).columns.iter().position(|c| c.as_bytes() == name).map_or(-1, |i| i as c_int)
}

/// # Safety
/// As cql.h says.
#[no_mangle]
pub unsafe extern "C" fn cql_cell(rows: *const Rows, row: usize, column: usize) -> Cell {
    let rows = &*rows;
    rows.cells[row * rows.columns.len() + column]
}

/// # Safety
/// As cql.h says.
#[no_mangle]
pub unsafe extern "C" fn cql_paging(rows: *const Rows, ret_len: *mut usize) -> *const u8 {
    let rows = &*rows;
    *ret_len = rows.paging.len();
    if rows.more {
        rows.paging.as_ptr()
    } else {
        std::ptr::null()
    }
}

/// # Safety
/// As cql.h says.
#[no_mangle]
pub unsafe extern "C" fn cql_done_free(done: *mut CqlDone) {
    let done = &mut *done;
    if !done.rows.is_null() {
        drop(Box::from_raw(done.rows));
    }
    if !done.error.is_null() {
        drop(CString::from_raw(done.error));
    }
    done.rows = std::ptr::null_mut();
    done.error = std::ptr::null_mut();
}
