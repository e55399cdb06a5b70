//! A load on a Starling server: its users made if they are missing, its counters read before and
//! after.

use crate::{
    arguments::Target,
    dialect::{Class, Starling},
    load::{self, Measured, Plan, Watcher},
    operator::{Counters, Operator},
    users::Users,
};
use anyhow::Result;
use starling_codec::limits;

/// What a load on a server measured.
pub struct Driven {
    pub measured: Measured,
    /// The server's counters before and after: warm-up, first messages and stragglers are in
    /// between.
    pub before: Counters,
    pub after: Counters,
}

/// Makes the users that are missing, and runs `plan` with them.
pub fn drive(
    target: &Target,
    plan: Plan,
    class: Class,
    watcher: &mut impl Watcher,
) -> Result<Driven> {
    let mut operator = Operator::connect(target.server, &target.operator_key)?;
    let mut users = Users::open(target.users.as_deref())?;
    users.ensure(plan.connections(), &mut operator)?;
    let before = operator.counters()?;
    let heartbeat_s = (limits::MIN_HEARTBEAT_S, limits::MAX_HEARTBEAT_S);
    let talkers = 2 * plan.pairs;
    let dialect = Starling::new(std::mem::take(&mut users.list), talkers, class, heartbeat_s);
    let (measured, dialect) = load::run(plan, rand::random(), dialect, watcher)?;
    users.list = dialect.users;
    users.save()?;
    let after = operator.counters()?;
    Ok(Driven { measured, before, after })
}
