#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "cc/domain/node_registry.hpp"
#include "cc/domain/peer_table.hpp"
#include "cc/domain/routing.hpp"
#include "common/base/clock.hpp"
#include "common/bus/bus.hpp"

namespace educloud::cc {

/// Carries messages between clc (`up`) and the nodes (`down`), which may be one bus. It holds no state: what
/// it has taken from one side is acked there only after the broker has confirmed it for the other, so a kill
/// -9 repeats and never loses.
class Bridge {
 public:
  /// Both must be stopped before this object goes.
  struct Buses {
    bus::Bus& up;
    bus::Bus& down;
  };
  Bridge(Buses buses, const Clock& clock, NodeRegistry& nodes, PeerTable& peers, std::string host);

  /// Subscribes to this cluster's three queues; before the buses start.
  void subscribe();
  /// Best effort: dropped while a broker is away. The nodes' broker counts too: a cc without nodes must not
  /// look alive to clc, which would take all of them for lost.
  void send_heartbeat(const msg::CcStatus& status);
  bool is_ready() const { return up_.is_ready() && down_.is_ready(); }
  /// Sends what waits for the other broker. To be called often while `is_ready`.
  void retry_parked();

 private:
  using Held = std::shared_ptr<bus::Delivery>;
  /// A message on its way across.
  struct Crossing {
    bus::Bus& to;
    bus::Outgoing message;
    Held held;
    std::function<void(bus::Outcome)> then;
  };

  void on_command(bus::Delivery delivery);
  void on_status(bus::Delivery delivery);
  void on_heartbeat(bus::Delivery delivery);
  void on_inventory(const bus::Delivery& delivery);
  void on_lease(const bus::Delivery& delivery);
  void tell_undeliverable(Held held, const msg::Command& command);
  void refuse(const bus::Delivery& delivery, const Error& error);
  /// Publishes; if that cannot even be queued, settles `held`.
  void pass_on(Crossing crossing);
  /// True if it waits for `retry_parked` now.
  bool park(const std::shared_ptr<Crossing>& crossing);

  bus::Bus& up_;
  bus::Bus& down_;
  const Clock& clock_;
  NodeRegistry& nodes_;
  PeerTable& peers_;
  const std::string host_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Crossing>> parked_;  // guarded by mutex_
};

}  // namespace educloud::cc
