#include "cc/app/bridge.hpp"

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::cc {
namespace {

constexpr std::uint16_t kPrefetch = 64;
/// Twice what both work queues hand out: the rest is of connections that ended meanwhile.
constexpr std::size_t kMaxParked = 4 * kPrefetch;
constexpr const char* kToNodes = "nc_cmd";
constexpr const char* kToClc = "clc_status";

void count(const char* kind, const char* result) {
  obs::metrics().count("educloud_cc_messages_total", "Messages relayed, by kind and what became of them", 1,
                       {{"kind", kind}, {"result", result}});
}

/// Work goes to quorum queues, which keep it for good; only heartbeats, leases and the tap go elsewhere.
bus::Outgoing outgoing(const char* exchange, Forward forward) {
  return {exchange,
          std::move(forward.routing_key),
          std::move(forward.body),
          std::move(forward.msgid),
          forward.expiration,
          /*persistent=*/false};
}

}  // namespace

Bridge::Bridge(Buses buses, const Clock& clock, NodeRegistry& nodes, PeerTable& peers, std::string host)
    : up_(buses.up), down_(buses.down), clock_(clock), nodes_(nodes), peers_(peers), host_(std::move(host)) {}

void Bridge::subscribe() {
  up_.subscribe({"cc_cmd_queue." + host_, kPrefetch, [this](bus::Delivery d) { on_command(std::move(d)); }});
  down_.subscribe({"cc_status_queue", kPrefetch, [this](bus::Delivery d) { on_status(std::move(d)); }});
  down_.subscribe({"cc_heartbeat_queue", kPrefetch, [this](bus::Delivery d) { on_heartbeat(std::move(d)); }});
}

void Bridge::refuse(const bus::Delivery& delivery, const Error& error) {
  obs::warn("message.refused", {{"queue", delivery.queue},
                                {"user_id", delivery.user_id},
                                {"routing_key", delivery.routing_key},
                                {"key", error.key},
                                {"error", error.message}});
  delivery.settle(bus::Verdict::reject);
}

void Bridge::pass_on(Crossing given) {
  const auto crossing = std::make_shared<Crossing>(std::move(given));
  auto queued = crossing->to.publish(crossing->message, [this, crossing](bus::Outcome outcome) {
    if (outcome != bus::Outcome::failed || !park(crossing)) crossing->then(outcome);
  });
  if (queued) return;
  if (queued.error().code == ErrorCode::too_large || queued.error().code == ErrorCode::invalid_argument) {
    return refuse(*crossing->held, queued.error());
  }
  crossing->held->settle(bus::Verdict::requeue);
}

// Where both sides are one broker, what is requeued stays there until it is back. With two, it would come
// again at once, and each time counts towards its queue's delivery limit.
bool Bridge::park(const std::shared_ptr<Crossing>& crossing) {
  if (&up_ == &down_ || crossing->to.is_ready()) return false;
  const std::lock_guard lock(mutex_);
  if (parked_.size() >= kMaxParked) return false;
  parked_.push_back(crossing);
  count("any", "parked");
  return true;
}

void Bridge::retry_parked() {
  std::vector<std::shared_ptr<Crossing>> again;
  {
    const std::lock_guard lock(mutex_);
    again.swap(parked_);
  }
  for (auto& one : again) pass_on(std::move(*one));
}

void Bridge::on_command(bus::Delivery delivery) {
  if (msg::is_type(delivery.body, "lease")) return on_lease(delivery);
  auto route = route_command(delivery.body, host_, clock_.wall_ms());
  if (!route && route.error().code == ErrorCode::timeout) {
    count("command", "expired");
    obs::warn("command.expired", {{"queue", delivery.queue}, {"error", route.error().message}});
    return delivery.settle(bus::Verdict::ack);
  }
  if (!route) {
    count("command", "refused");
    return refuse(delivery, route.error());
  }
  const auto held = std::make_shared<bus::Delivery>(std::move(delivery));
  auto then = [this, held, command = std::move(route->command)](bus::Outcome outcome) {
    switch (outcome) {
      case bus::Outcome::confirmed:
        count("command", "passed");
        obs::debug("command.passed", {{"tid", command.tid}, {"op", command.op}, {"node", command.nid}});
        return held->settle(bus::Verdict::ack);
      case bus::Outcome::returned: return tell_undeliverable(held, command);
      case bus::Outcome::failed: count("command", "retried"); return held->settle(bus::Verdict::requeue);
    }
  };
  pass_on({down_, outgoing(kToNodes, std::move(route->forward)), held, std::move(then)});
}

void Bridge::tell_undeliverable(Held held, const msg::Command& command) {
  count("command", "returned");
  obs::warn("command.undeliverable", {{"tid", command.tid}, {"op", command.op}, {"node", command.nid}});
  Forward forward;
  forward.routing_key = "taskstatus.cc-" + host_;
  forward.body = msg::serialize(undeliverable(command, host_, clock_.wall_ms()));
  forward.msgid = command.cmdid + "-returned";
  pass_on({up_, outgoing(kToClc, std::move(forward)), held, [held](bus::Outcome outcome) {
             held->settle(outcome == bus::Outcome::confirmed ? bus::Verdict::ack : bus::Verdict::requeue);
           }});
}

void Bridge::on_status(bus::Delivery delivery) {
  auto route = route_status(delivery.body, delivery.user_id, host_);
  if (!route) {
    count("status", "refused");
    return refuse(delivery, route.error());
  }
  const auto held = std::make_shared<bus::Delivery>(std::move(delivery));
  auto then = [held](bus::Outcome outcome) {
    // Returned: the broker lacks clc's queue. Keep it; an operator restores the definitions.
    const bool passed = outcome == bus::Outcome::confirmed;
    count("status", passed ? "passed" : "retried");
    if (outcome == bus::Outcome::returned) {
      obs::error("status.unroutable",
                 {{"exchange", kToClc}, {"remedy", "import the broker's definitions again"}});
    }
    held->settle(passed ? bus::Verdict::ack : bus::Verdict::requeue);
  };
  pass_on({up_, outgoing(kToClc, std::move(route->forward)), held, std::move(then)});
}

// Best effort, both: clc and the node say it again in a few seconds, and a late one would be wrong.
void Bridge::on_lease(const bus::Delivery& delivery) {
  auto grants = route_lease(delivery.body, host_);
  if (!grants) {
    count("lease", "refused");
    return refuse(delivery, grants.error());
  }
  delivery.settle(bus::Verdict::ack);
  for (auto& grant : *grants) {
    const bool queued = down_.is_ready() && down_.publish(outgoing(kToNodes, std::move(grant)), {});
    count("lease", queued ? "passed" : "dropped");
  }
}

void Bridge::on_inventory(const bus::Delivery& delivery) {
  auto route = route_inventory(delivery.body, delivery.user_id, host_);
  if (!route) {
    count("inventory", "refused");
    return refuse(delivery, route.error());
  }
  delivery.settle(bus::Verdict::ack);
  const bool queued = up_.is_ready() && up_.publish(outgoing(kToClc, std::move(route->forward)), {});
  count("inventory", queued ? "passed" : "dropped");
}

void Bridge::on_heartbeat(bus::Delivery delivery) {
  if (msg::is_type(delivery.body, "inventory")) return on_inventory(delivery);
  auto route = route_heartbeat(delivery.body, delivery.user_id, host_);
  if (!route) {
    count("heartbeat", "refused");
    return refuse(delivery, route.error());
  }
  delivery.settle(bus::Verdict::ack);  // the next one comes in 5 s
  const auto& status = route->status;
  auto known =
      nodes_.remember(status.host, {status.net_data.ip0, status.service_data.data_port}, clock_.boot_ms());
  peers_.remember(status.host, status.images, clock_.boot_ms());
  if (!known) obs::debug("node.address_unusable", {{"node", status.host}, {"error", known.error().message}});
  if (!up_.is_ready()) return count("heartbeat", "dropped");
  const bool queued = up_.publish(outgoing(kToClc, std::move(route->forward)), {}).has_value();
  count("heartbeat", queued ? "passed" : "dropped");
}

void Bridge::send_heartbeat(const msg::CcStatus& status) {
  if (!is_ready()) return;
  (void)up_.publish(outgoing(kToClc, own_heartbeat(status, host_)), {});
}

}  // namespace educloud::cc
