#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "clc/api/api.hpp"
#include "clc/app/event_hub.hpp"
#include "clc/app/heartbeats.hpp"
#include "clc/app/outbox_relay.hpp"
#include "clc/app/setup.hpp"
#include "clc/store/catalogue.hpp"
#include "clc/store/store.hpp"
#include "common/bus/memory_bus.hpp"
#include "common/http/client.hpp"
#include "common/http/server.hpp"
#include "common/msg/host_status.hpp"

namespace educloud::clc {

inline constexpr const char* kAdminPassword = "correct horse battery";
inline constexpr const char* kUserPassword = "staple wrong donkey";

/// clc's API on a real HTTP server over a real database, with a broker in memory. Accounts: `admin` and the
/// ordinary users `anna` and `ben`; cluster cc1 with node nc1.
class ApiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/educloud-clc-api-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern), nullptr);
    root_ = pattern;
    auto store = store::Store::open(root_ / "clc.sqlite");
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
    ASSERT_TRUE(create_account(*store_, clock_, "admin", kAdminPassword, true));
    ASSERT_TRUE(create_account(*store_, clock_, "anna", kUserPassword, false));
    ASSERT_TRUE(create_account(*store_, clock_, "ben", kUserPassword, false));
    ASSERT_TRUE(register_cluster(*store_, "cc1"));
    ASSERT_TRUE(register_node(*store_, "nc1", "cc1"));
    broker_.bind("cc_cmd", "cc1", "cc_cmd_queue.cc1");
    broker_.bind("walrus_cmd", "walrus", "walrus_cmd_queue");
    bus_ = broker_.connect("clc");
    heartbeats_ = std::make_unique<Heartbeats>(clock_);
    relay_ = std::make_unique<OutboxRelay>(*store_, *bus_, clock_);
    CloudOptions options;
    options.walrus_url = "http://127.0.0.1:8001";
    options.data_key = std::string(64, 'd');
    options.placement.max_cpu_usage = 100;
    cloud_ = std::make_unique<Cloud>(*store_, *heartbeats_, events_, clock_, options);
    cloud_->on_outbox([] {});
    cloud_->broker_state([] { return true; });
    bus_->start([] {});
    server_ = std::make_unique<http::Server>(http::ServerOptions{.threads = 4}, make_api(*cloud_));
    auto started = server_->start();
    ASSERT_TRUE(started) << started.error().message;
  }
  void TearDown() override {
    events_.close();
    if (server_) server_->stop();
    if (bus_) bus_->stop();
    relay_.reset();
    cloud_.reset();
    if (store_) store_->close();
    std::filesystem::remove_all(root_);
  }

  http::Client client() const {
    return http::Client(*http::Url::parse("http://127.0.0.1:" + std::to_string(server_->port())));
  }
  /// `path` below kApiBase unless it begins with "//" (then from the root). Status 0: no answer.
  http::ClientResponse call(const std::string& method, const std::string& path, const std::string& token = {},
                            const std::string& body = {}) const {
    http::ClientRequest request;
    request.method = method;
    request.target = path.starts_with("//") ? path.substr(1) : kApiBase + path;
    if (!token.empty()) request.headers["Authorization"] = "Bearer " + token;
    request.body = body;
    auto one = client();
    auto response = one.send(request);
    return response ? *response
                    : http::ClientResponse{.status = 0, .headers = {}, .body = response.error().message};
  }
  nlohmann::json json_of(const http::ClientResponse& response) const {
    return nlohmann::json::parse(response.body, nullptr, false);
  }
  /// {"error": {...}} of a refusal.
  nlohmann::json error_of(const http::ClientResponse& response) const {
    const auto json = json_of(response);
    return json.is_object() && json.contains("error") ? json["error"] : nlohmann::json::object();
  }
  http::ClientResponse log_in(const std::string& user, const std::string& password) const {
    return call("POST", "/login", {}, nlohmann::json{{"user", user}, {"password", password}}.dump());
  }
  std::string token_of(const std::string& user) const {
    const auto answer = json_of(log_in(user, user == "admin" ? kAdminPassword : kUserPassword));
    return answer.value("token", std::string());
  }

  /// An image with one published version, as walrus would have left it.
  void add_ready_image(const std::string& imgid, const std::string& name) {
    auto added = store_->write([&](store::Sql& sql) -> Result<> {
      Image image;
      image.imgid = imgid;
      image.name = name;
      image.owner = "admin";
      image.ostype = "linux";
      image.current_version = 1;
      image.next_version = 2;
      image.created_at = clock_.wall_ms();
      store::add_image(sql, image);
      Version version;
      version.imgid = imgid;
      version.version = 1;
      version.digest = std::string(64, 'a');
      version.size_bytes = 1 << 20;
      version.virtual_size_bytes = 1 << 24;
      version.created_at = clock_.wall_ms();
      store::add_version(sql, version);
      return {};
    });
    ASSERT_TRUE(added) << added.error().message;
  }

  /// A heartbeat of nc1 and one of cc1, whose data port is `cc_port`.
  void beat(int cc_port) {
    msg::NodeStatus node;
    node.nid = "nc#52:54:00:00:00:01#status";
    node.host = "nc1";
    node.ccid = "cc1";
    node.service_data.hypervisor = "fake";
    node.hardware_data = {
        .cpus = 8, .cpu_usage = 1, .mem = 64'000, .mem_usage = 1000, .disk = 900'000, .disk_usage = 1000};
    node.net_data.ip0 = "127.0.0.1";
    take("nodestatus.cc-cc1", msg::serialize(node));
    msg::CcStatus cluster;
    cluster.ccid = "cc#52:54:00:00:00:02#status";
    cluster.host = "cc1";
    cluster.service_data.data_port = cc_port;
    cluster.net_data.ip0 = "127.0.0.1";
    take("ccstatus.cc-cc1", msg::serialize(cluster));
  }
  void take(const std::string& key, const std::string& body) {
    bus::Delivery delivery;
    delivery.routing_key = key;
    delivery.user_id = "cc-cc1";
    delivery.body = body;
    ASSERT_EQ(heartbeats_->take(delivery), bus::Verdict::ack) << body;
  }

  std::filesystem::path root_;
  SystemClock clock_;
  bus::MemoryBroker broker_;
  std::unique_ptr<bus::Bus> bus_;
  EventHub events_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<Heartbeats> heartbeats_;
  std::unique_ptr<OutboxRelay> relay_;
  std::unique_ptr<Cloud> cloud_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace educloud::clc
