#pragma once

#include <string>

#include "cc/domain/node_registry.hpp"
#include "cc/domain/peer_table.hpp"
#include "cc/domain/routing.hpp"
#include "common/base/clock.hpp"
#include "common/bus/bus.hpp"

namespace educloud::cc {

/// Carries messages between clc and the nodes. It holds no state: what it has taken from one side is
/// acked there only after the broker has confirmed it for the other, so a kill -9 repeats and never loses.
class Bridge {
 public:
  /// `bus` must be stopped before this object goes.
  Bridge(bus::Bus& bus, const Clock& clock, NodeRegistry& nodes, PeerTable& peers, std::string host);

  /// Subscribes to this cluster's three queues; before `bus.start`.
  void subscribe();
  /// Best effort: dropped while the broker is away.
  void send_heartbeat(const msg::CcStatus& status);

 private:
  using Held = std::shared_ptr<bus::Delivery>;

  void on_command(bus::Delivery delivery);
  void on_status(bus::Delivery delivery);
  void on_heartbeat(bus::Delivery delivery);
  void on_inventory(const bus::Delivery& delivery);
  void on_lease(const bus::Delivery& delivery);
  void tell_undeliverable(Held held, const msg::Command& command);
  void refuse(const bus::Delivery& delivery, const Error& error);
  /// Publishes; if that cannot even be queued, settles `held`.
  void pass_on(const char* exchange, Forward forward, Held held, std::function<void(bus::Outcome)> then);

  bus::Bus& bus_;
  const Clock& clock_;
  NodeRegistry& nodes_;
  PeerTable& peers_;
  const std::string host_;
};

}  // namespace educloud::cc
