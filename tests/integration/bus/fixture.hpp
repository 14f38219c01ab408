#pragma once

#include "integration/bus/collector.hpp"
#include "integration/bus/test_broker.hpp"

namespace educloud::test {

/// The objects these tests talk about: `work` (quorum, dead-lettering), `small` (max 3, reject-publish),
/// `dead` (the dead letters), `gone` (to be deleted). Users `alice` (all) and `bob`.
inline nlohmann::json bus_definitions() {
  const auto queue = [](const char* name, nlohmann::json arguments) {
    return nlohmann::json{
        {"name", name}, {"vhost", "/"}, {"durable", true}, {"auto_delete", false}, {"arguments", std::move(arguments)}};
  };
  const auto bind = [](const char* exchange, const char* queue_name, const char* key) {
    return nlohmann::json{{"source", exchange},          {"vhost", "/"},        {"destination", queue_name},
                          {"destination_type", "queue"}, {"routing_key", key}, {"arguments", nlohmann::json::object()}};
  };
  const auto exchange = [](const char* name, const char* type) {
    return nlohmann::json{{"name", name},         {"vhost", "/"},      {"type", type}, {"durable", true},
                          {"auto_delete", false}, {"internal", false}, {"arguments", nlohmann::json::object()}};
  };
  const nlohmann::json dead = {{"x-dead-letter-exchange", "dead_letter"}};
  nlohmann::json work = dead;
  work["x-queue-type"] = "quorum";
  work["x-delivery-limit"] = 20;
  const nlohmann::json small = {{"x-max-length", 3}, {"x-overflow", "reject-publish"}};
  return {{"exchanges", {exchange("cmd", "direct"), exchange("dead_letter", "topic")}},
          {"queues",
           {queue("work", work), queue("small", small), queue("dead", nlohmann::json::object()), queue("gone", dead)}},
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
