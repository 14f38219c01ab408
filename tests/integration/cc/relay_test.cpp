#include <gtest/gtest.h>

#include "integration/cc/relay_fixture.hpp"
#include "support/fault.hpp"

namespace educloud::test {
namespace {

using namespace std::chrono_literals;

const std::string kImage = "IMG0000000a", kOther = "IMG0000000b";

class RelayTest : public ::testing::Test {
 protected:
  void start(Relay::Options options = {}) {
    relay_.reset();
    relay_ = std::make_unique<Relay>(dir_.path(), walrus_.url(), options);
  }
  Node node(const std::string& name, int version = 1, const std::string& imgid = kImage,
            transfer::Priority priority = transfer::Priority::user) {
    return {relay_->url(), name, imgid, version, priority};
  }

  testing::TempDir dir_;
  ChunkWalrus walrus_;
  std::unique_ptr<Relay> relay_;
};

TEST_F(RelayTest, FourNodesAtOnceCostOneVersion) {
  const SampleDisk disk(500, 1);
  walrus_.add(kImage, 1, disk);
  start();
  std::vector<std::thread> nodes;
  for (int i = 0; i < 4; ++i) {
    nodes.emplace_back([&, i] {
      auto ok = node("nc" + std::to_string(i)).fetch_all(disk);
      EXPECT_TRUE(ok) << ok.error().message;
    });
  }
  for (auto& one : nodes) one.join();
  EXPECT_LE(static_cast<double>(walrus_.sent_bytes), 1.05 * static_cast<double>(disk.frame_bytes));
  EXPECT_GE(walrus_.sent_bytes, disk.frame_bytes);
  EXPECT_EQ(walrus_.manifests_read, 1u);
  EXPECT_EQ(walrus_.askers(), std::set<std::string>{"cc1"});
}

TEST_F(RelayTest, AFrameIsHandedOnWhileTheRestIsStillAtWalrus) {
  const SampleDisk disk(60, 2);
  walrus_.add(kImage, 1, disk);
  start({.upstream = {.connections = 1}});
  walrus_.allow(3);
  std::atomic<std::size_t> come{0};
  std::thread reader([&] {
    auto ok = node("nc1").fetch(disk.order, 256, [&](std::size_t count) { come = count; });
    EXPECT_TRUE(ok) << ok.error().message;
  });
  EXPECT_TRUE(wait_until([&] { return come == 3; }));
  EXPECT_EQ(walrus_.sent().size(), 3u);
  walrus_.allow(-1);
  reader.join();
  EXPECT_EQ(come, disk.order.size());
}

TEST_F(RelayTest, WalrusMayBeKilledInTheMiddle) {
  const SampleDisk disk(300, 3);
  walrus_.add(kImage, 1, disk);
  start();
  walrus_.allow(100);
  std::atomic<std::size_t> come{0};
  std::thread reader([&] {
    auto ok = node("nc1").fetch(disk.order, 512, [&](std::size_t count) { come = count; });
    EXPECT_TRUE(ok) << ok.error().message;
  });
  EXPECT_TRUE(wait_until([&] { return walrus_.sent().size() == 100; }));
  walrus_.stop();
  educloud::test::injected("transfer-cut");
  walrus_.allow(-1);
  walrus_.start();
  reader.join();
  EXPECT_EQ(come, disk.order.size());
  // What had arrived was not asked for again; what was under way on the four connections may have been.
  EXPECT_LE(walrus_.sent().size(), disk.order.size() + 100);
}

TEST_F(RelayTest, ARestartedRelayNeedsNoWalrus) {
  const SampleDisk disk(200, 4);
  walrus_.add(kImage, 1, disk);
  start();
  ASSERT_TRUE(node("nc1").fetch_all(disk));
  start();
  const std::uint64_t before = walrus_.sent_bytes;
  walrus_.stop();
  auto ok = node("nc2").fetch_all(disk);
  EXPECT_TRUE(ok) << ok.error().message;
  EXPECT_EQ(walrus_.sent_bytes, before);
}

TEST_F(RelayTest, ACacheSmallerThanTheImageStillWorks) {
  const SampleDisk disk(800, 5);  // about 27 MB of frames
  walrus_.add(kImage, 1, disk);
  start({.cache_bytes = 6 << 20, .pack_bytes = 1 << 20});
  std::vector<std::thread> nodes;
  for (int i = 0; i < 3; ++i) {
    nodes.emplace_back([&, i] {
      auto ok = node("nc" + std::to_string(i)).fetch(disk.order, 1024);
      EXPECT_TRUE(ok) << ok.error().message;
    });
  }
  for (auto& one : nodes) one.join();
  auto stats = relay_->store().stats();
  ASSERT_TRUE(stats);
  EXPECT_LE(stats->stored_bytes, 8u << 20);
}

TEST_F(RelayTest, AUserOvertakesAPrefetch) {
  const SampleDisk big(600, 6), small(40, 7);
  walrus_.add(kImage, 1, big);
  walrus_.add(kOther, 1, small);
  start({.upstream = {.connections = 2}});
  walrus_.allow(10);
  std::thread prefetch([&] {
    auto ok = node("nc1", 1, kImage, transfer::Priority::prefetch).fetch(big.order, 1024);
    EXPECT_TRUE(ok) << ok.error().message;
  });
  EXPECT_TRUE(wait_until([&] { return walrus_.sent().size() == 10; }));
  std::thread user([&] {
    auto ok = node("nc2", 1, kOther).fetch(small.order, 1024);
    EXPECT_TRUE(ok) << ok.error().message;
  });
  // The user's request is at walrus although the prefetch has hundreds of chunks in the line before it.
  EXPECT_TRUE(wait_until([&] { return walrus_.requests >= 3; }));
  walrus_.allow(-1);
  user.join();
  prefetch.join();
  const auto sent = walrus_.sent();
  const auto last_of_user = std::find(sent.rbegin(), sent.rend(), small.order.back());
  EXPECT_GT(last_of_user - sent.rbegin(), 400) << "most of the prefetch came after the user's last chunk";
}

TEST_F(RelayTest, UserAndPrefetchShareALimitedUplink) {
  const SampleDisk big(60, 15), small(30, 16);
  walrus_.add(kImage, 1, big);
  walrus_.add(kOther, 1, small);
  start({.upstream = {.connections = 2, .uplink = {{0, 0, 100}}}});  // the whole day
  std::thread prefetch([&] {
    auto ok = node("nc1", 1, kImage, transfer::Priority::prefetch).fetch(big.order);
    EXPECT_TRUE(ok) << ok.error().message;
  });
  auto ok = node("nc2", 1, kOther).fetch(small.order);
  EXPECT_TRUE(ok) << ok.error().message;
  prefetch.join();
}

TEST_F(RelayTest, WhoGoesAwayIsNotFetchedFor) {
  const SampleDisk disk(900, 8);
  walrus_.add(kImage, 1, disk);
  start();
  walrus_.allow(20);
  std::stop_source gone;
  std::thread reader([&] { EXPECT_FALSE(node("nc1").fetch(disk.order, 1024, {}, gone.get_token())); });
  EXPECT_TRUE(wait_until([&] { return walrus_.sent().size() == 20; }));
  gone.request_stop();
  reader.join();
  // Its own chunk comes through although nothing else moves: the line before it is empty.
  const SampleDisk other(1, 9);
  walrus_.add(kOther, 1, other);
  walrus_.allow(-1);
  auto ok = node("nc2", 1, kOther).fetch(other.order);
  EXPECT_TRUE(ok) << ok.error().message;
  EXPECT_LT(walrus_.sent().size(), 500u);
}

TEST_F(RelayTest, WhatWalrusLacksIsSaidAtOnce) {
  const SampleDisk disk(5, 10), unknown(5, 11);
  walrus_.add(kImage, 1, disk);
  start();
  auto ids = disk.order;
  ids.push_back(unknown.order[0]);
  auto missing = node("nc1").fetch({unknown.order[0]});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::not_found) << missing.error().message;
  EXPECT_FALSE(node("nc1").fetch(ids));
  EXPECT_TRUE(node("nc1").fetch(disk.order));
  auto manifest = node("nc1", 7)->manifest_text({});
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, ErrorCode::not_found) << manifest.error().message;
}

TEST_F(RelayTest, AManifestWaitsForWalrusToComeBack) {
  const SampleDisk disk(5, 12);
  walrus_.add(kImage, 1, disk);
  start();
  walrus_.stop();
  std::thread repair([&] { walrus_.start(); });
  auto ok = node("nc1").fetch_all(disk);
  repair.join();
  EXPECT_TRUE(ok) << ok.error().message;
}

TEST_F(RelayTest, WithoutAGrantForExactlyThisNothingIsTold) {
  const SampleDisk disk(2, 13);
  walrus_.add(kImage, 1, disk);
  start();
  const auto code_with = [&](const std::string& grant) {
    transfer::ChunkClient client({relay_->url(), kImage, 1, grant});
    auto text = client.manifest_text({});
    return text ? ErrorCode::internal : text.error().code;
  };
  const auto path = transfer::version_path(kImage, 1);
  EXPECT_EQ(code_with(grant_for("nc1", "PUT", path)), ErrorCode::permission_denied);
  EXPECT_EQ(code_with(grant_for("nc1", "GET", transfer::version_path(kImage, 2))),
            ErrorCode::permission_denied);
  EXPECT_EQ(code_with(grant_for("nc1", "GET", path, std::string(64, 'b'))), ErrorCode::permission_denied);
  EXPECT_EQ(code_with(""), ErrorCode::permission_denied);
  EXPECT_EQ(walrus_.manifests_read, 0u);
}

TEST_F(RelayTest, NeighboursAreToldWithGrantsThatOnlyTheyAccept) {
  const SampleDisk disk(2, 14);
  walrus_.add(kImage, 1, disk);
  start();
  const SystemClock clock;
  const auto path = transfer::version_path(kImage, 1);
  for (const char* name : {"nc1", "nc2", "nc3"}) {
    ASSERT_TRUE(relay_->nodes.remember(name, {"10.0.0.7", 8003}, clock.boot_ms()));
  }
  const auto peers_of = [&](const std::string& name, const std::string& complete) {
    auto json = node(name)->get_json("peers?complete=" + complete, {});
    EXPECT_TRUE(json) << json.error().message;
    return json ? *json : nlohmann::json::object();
  };
  auto first = peers_of("nc1", "0");
  EXPECT_TRUE(first["enabled"].get<bool>());
  EXPECT_TRUE(first["members"].empty());
  ASSERT_TRUE(node("nc1").fetch_all(disk));  // so the digest is known here
  relay_->peer_table.remember("nc3", {{kImage, 1, disk.digest().hex()}}, clock.boot_ms());
  const auto members = peers_of("nc2", "1")["members"];
  ASSERT_EQ(members.size(), 2u);
  EXPECT_EQ(members[0]["node"], "nc3");
  EXPECT_TRUE(members[0]["complete"].get<bool>());
  EXPECT_EQ(members[1]["node"], "nc1");
  EXPECT_FALSE(members[1]["complete"].get<bool>());
  EXPECT_EQ(members[1]["url"], "http://10.0.0.7:8003");

  const auto grant = members[1]["grant"].get<std::string>();
  std::map<std::string, std::string> query;
  std::istringstream parts(grant);
  for (std::string part; std::getline(parts, part, '&');) {
    query[part.substr(0, part.find('='))] = part.substr(part.find('=') + 1);
  }
  const std::int64_t now = clock.wall_ms() / 1000;
  auto whose = transfer::verify_grant(transfer::derive_node_key(kDataKey, "nc1"), "GET", path, query, now);
  ASSERT_TRUE(whose) << whose.error().message;
  EXPECT_EQ(*whose, "nc2");
  EXPECT_FALSE(transfer::verify_grant(transfer::derive_node_key(kDataKey, "nc3"), "GET", path, query, now));
  EXPECT_FALSE(transfer::verify_grant(kDataKey, "GET", path, query, now));

  start({.peers = false});
  const auto off = peers_of("nc2", "0");
  EXPECT_FALSE(off["enabled"].get<bool>());
  EXPECT_TRUE(off["members"].empty());
}

}  // namespace
}  // namespace educloud::test
