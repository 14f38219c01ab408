#pragma once

#include <memory>

#include "cc/app/bridge.hpp"
#include "sim/bus/broker.hpp"
#include "sim/world/host.hpp"

namespace educloud::sim {

/// cc: its bridge and heartbeat; it keeps nothing.
class CcHost : public Host {
 public:
  CcHost(Surroundings surroundings, Broker& broker, std::string name, std::uint64_t seed)
      : Host(std::move(surroundings), std::move(name), seed), broker_(broker) {}

 protected:
  Result<> boot() override;
  void wreck() override { parts_.reset(); }

 private:
  struct Parts {
    Parts(Broker& broker, CcHost& host)
        : bus(broker.connect("cc-" + host.name(), host)),
          bridge({*bus, *bus}, host.clock_, nodes, peers, host.name()) {}
    cc::NodeRegistry nodes;
    cc::PeerTable peers;
    std::unique_ptr<bus::Bus> bus;
    cc::Bridge bridge;
  };
  Broker& broker_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace educloud::sim
