//! What an operator does to a server: virtual hosts, users, policies, outages.

use std::time::Duration;

use serde_json::Value;

use super::RabbitServer;

/// Whom the server's log names as the one who did it.
const WHO: &str = "<<\"tests\">>";
/// A share of memory that is always used up.
const NO_MEMORY: &str = "0.0000001";
/// RabbitMQ's own default.
const MEMORY: &str = "0.4";
/// More than any disk has, in bytes.
const NO_DISK: &str = "1 bsl 62";
/// As the configuration has it.
const DISK: &str = "1000000";
/// A server with little patience looks so often, in milliseconds. Left to itself it looks once a minute.
const LOOK_EVERY_MS: u32 = 100;

/// What a server runs out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Memory (`rabbitmqctl set_vm_memory_high_watermark`).
    Memory,
    /// Disk (`rabbitmqctl set_disk_free_limit`).
    Disk,
}

impl Room {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Memory, Self::Disk];

    /// What the server says of it to whoever it blocks.
    pub fn complaint(self) -> &'static str {
        match self {
            Self::Memory => "low on memory",
            Self::Disk => "low on disk",
        }
    }

    fn set(self, is_enough: bool) -> String {
        let set = match self {
            Self::Memory => {
                let share = if is_enough { MEMORY } else { NO_MEMORY };
                format!("vm_memory_monitor:set_vm_memory_high_watermark({share})")
            }
            Self::Disk => {
                let limit = if is_enough { DISK } else { NO_DISK };
                format!("rabbit_disk_monitor:set_disk_free_limit({limit})")
            }
        };
        // Who answers a question has heard what was said before: the alarms' keeper first, then each connection.
        format!(
            "{set}, rabbit_alarm:get_alarms(), \
             [catch rabbit_networking:connection_info(Pid, [pid]) || Pid <- rabbit_networking:connections()], ok"
        )
    }
}

/// A text as an Erlang binary.
fn text(text: &str) -> String {
    format!("<<{}/utf8>>", Value::from(text))
}

impl RabbitServer {
    /// Adds a virtual host that nobody else uses, in which `guest` may do everything.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn fresh_vhost(&self) -> anyhow::Result<String> {
        let name = Self::fresh_name();
        self.add_vhost(&name).await?;
        Ok(name)
    }

    /// [`RabbitServer::fresh_vhost`] for code that is not async.
    ///
    /// # Errors
    /// As [`RabbitServer::fresh_vhost`].
    pub fn fresh_vhost_blocking(&self) -> anyhow::Result<String> {
        let name = Self::fresh_name();
        self.eval_blocking(&adding(&name))?;
        Ok(name)
    }

    /// Adds a virtual host in which `guest` may do everything.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn add_vhost(&self, name: &str) -> anyhow::Result<()> {
        self.eval(&adding(name)).await.map(drop)
    }

    /// Deletes a virtual host with all that is in it.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn delete_vhost(&self, name: &str) -> anyhow::Result<()> {
        self.eval(&format!("rabbit_vhost:delete({}, {WHO})", text(name))).await.map(drop)
    }

    /// Adds a user, who may do nothing anywhere.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn add_user(&self, user: &str, password: &str) -> anyhow::Result<()> {
        let (user, password) = (text(user), text(password));
        let expression = format!("rabbit_auth_backend_internal:add_user({user}, {password}, {WHO})");
        self.eval(&expression).await.map(drop)
    }

    /// Gives a user another password. Open connections stay.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn set_password(&self, user: &str, password: &str) -> anyhow::Result<()> {
        let (user, password) = (text(user), text(password));
        let expression = format!("rabbit_auth_backend_internal:change_password({user}, {password}, {WHO})");
        self.eval(&expression).await.map(drop)
    }

    /// Lets a user do everything in a virtual host.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn permit(&self, user: &str, vhost: &str) -> anyhow::Result<()> {
        self.eval(&permitting(user, vhost)).await.map(drop)
    }

    /// Takes that away again.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn forbid(&self, user: &str, vhost: &str) -> anyhow::Result<()> {
        let (user, vhost) = (text(user), text(vhost));
        let expression = format!("rabbit_auth_backend_internal:clear_permissions({user}, {vhost}, {WHO})");
        self.eval(&expression).await.map(drop)
    }

    /// Sets a policy for queues whose name matches; `definition` is its JSON object.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn set_policy(&self, vhost: &str, pattern: &str, definition: &Value) -> anyhow::Result<()> {
        let (vhost, pattern, definition) = (text(vhost), text(pattern), text(&definition.to_string()));
        let expression = format!(
            "ok = rabbit_policy:parse_set({vhost}, <<\"tests\">>, {pattern}, {definition}, <<\"0\">>, <<\"queues\">>, {WHO})"
        );
        self.eval(&expression).await.map(drop)
    }

    /// Closes every connection to a virtual host, as `rabbitmqctl close_all_connections` does. Returns how many.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn close_connections(&self, vhost: &str, reason: &str) -> anyhow::Result<u64> {
        let expression = format!(
            "Of = fun(Pid) -> try [{{vhost, Is}}] = rabbit_networking:connection_info(Pid, [vhost]), Is =:= {} \
             catch _:_ -> false end end, \
             Pids = [Pid || Pid <- rabbit_networking:connections(), Of(Pid)], \
             [catch rabbit_networking:close_connection(Pid, {}) || Pid <- Pids], length(Pids)",
            text(vhost),
            Value::from(reason),
        );
        Ok(self.eval(&expression).await?.as_u64().unwrap_or_default())
    }

    /// `rabbitmqctl stop_app`: the node stays, the broker in it ends as it does at a shutdown.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn stop_app(&self) -> anyhow::Result<()> {
        self.eval("ok = rabbit:stop()").await.map(drop)
    }

    /// `rabbitmqctl start_app`, once it serves.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn start_app(&self) -> anyhow::Result<()> {
        self.eval("ok = rabbit:start()").await.map(drop)
    }

    /// Raises the alarm for want of this: whoever publishes is blocked.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn starve(&self, of: Room) -> anyhow::Result<()> {
        self.eval(&of.set(false)).await.map(drop)
    }

    /// Ends the alarm.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn feed(&self, with: Room) -> anyhow::Result<()> {
        self.eval(&with.set(true)).await.map(drop)
    }

    /// Closes channels with a delivery that is unsettled for so long (`consumer_timeout`), and looks for them often.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn set_consumer_timeout(&self, time: Duration) -> anyhow::Result<()> {
        let expression = format!(
            "application:set_env(rabbit, consumer_timeout, {}), \
             application:set_env(rabbit, channel_tick_interval, {LOOK_EVERY_MS})",
            time.as_millis()
        );
        self.eval(&expression).await.map(drop)
    }
}

fn adding(vhost: &str) -> String {
    format!("rabbit_vhost:add({}, {WHO}), {}", text(vhost), permitting("guest", vhost))
}

fn permitting(user: &str, vhost: &str) -> String {
    let (user, vhost, all) = (text(user), text(vhost), "<<\".*\">>");
    format!("rabbit_auth_backend_internal:set_permissions({user}, {vhost}, {all}, {all}, {all}, {WHO})")
}
