#pragma once

#include "integration/bus/collector.hpp"
#include "integration/bus/definitions.hpp"
#include "integration/bus/test_broker.hpp"

namespace educloud::test {

/// The objects these tests talk about: `work` (quorum, dead-lettering), `small` (max 3, reject-publish),
/// `dead` (the dead letters), `gone` (to be deleted). Users `alice` (all) and `bob`.
inline nlohmann::json bus_definitions() {
  return {{"exchanges", {exchange("cmd", "direct"), exchange("dead_letter", "topic")}},
          {"queues",
           {work_queue("work"), queue("small", {{"x-max-length", 3}, {"x-overflow", "reject-publish"}}),
            queue("dead"), queue("gone")}},
          {"bindings",
           {bind("cmd", "work", "work"), bind("cmd", "small", "small"), bind("cmd", "gone", "gone"),
            bind("dead_letter", "dead", "#")}}};
}

/// The broker of this test program.
TestBroker& broker();

class BusTest : public ::testing::Test {
 protected:
  void TearDown() override {
    for (const auto* queue : {"work", "small", "dead"}) {
      if (dirty_) broker().ctl({"purge_queue", queue});
    }
  }
  static bus::Outgoing message(const std::string& key, const std::string& msgid) {
    bus::Outgoing out;
    out.exchange = "cmd";
    out.routing_key = key;
    out.body = R"({"n":")" + msgid + "\"}";
    out.msgid = msgid;
    return out;
  }
  bool dirty_ = true;
};

}  // namespace educloud::test
