//! The whole worker turn: a node that has found its neighbours and peers gets what the bytes choose.

use crate::draw::Draw;
use crate::driver::Driver;
use crate::solo::{Plan, Solo, configuration};
use std::sync::OnceLock;
use steerage::manage::config::Config;

const PLAN: Plan = Plan { workers: 2, sessions: 64, buffers: 192 };

/// Choices of one input; more would only make runs slow.
const MOST: usize = 200;

/// No choices make the node panic, send what it must not send, or keep a buffer.
pub fn one(bytes: &[u8]) {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    let config = CONFIG.get_or_init(|| configuration(PLAN)).clone();
    let mut driver = Driver::new(Solo::with(config, PLAN));
    let mut draw = Draw::Bytes(bytes);
    for _ in 0..MOST {
        if draw.is_empty() {
            break;
        }
        driver.act(&mut draw);
    }
    driver.finish();
}
