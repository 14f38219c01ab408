#include "cc/app/config.hpp"

#include <gtest/gtest.h>

#include "support/paths.hpp"
#include "support/temp_dir.hpp"

namespace educloud::cc {
namespace {

TEST(CcConfig, TheExampleLoadsAndTellsTheDefaults) {
  const auto path = test::source_dir() / "config" / "cc.conf";
  const auto config = load_config(path);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->common.host, "cc1");
  EXPECT_EQ(config->common.broker.user, "cc-cc1");
  EXPECT_EQ(config->common.port, 8002);
  EXPECT_EQ(config->cache_bytes, 107374182400);
  EXPECT_TRUE(config->peers);
  EXPECT_TRUE(config->uplink.empty());

  // With every commented key live, the values are the defaults that the comments claim.
  auto text = testing::slurp(path);
  for (auto at = text.find("\n#"); at != std::string::npos; at = text.find("\n#", at + 1)) {
    if (text[at + 2] != ' ') text.erase(at + 1, 1);
  }
  const testing::TempDir dir;
  const auto all = load_config(dir.write("cc.conf", text));
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_EQ(all->cache_bytes, config->cache_bytes);
  EXPECT_EQ(all->peers, config->peers);
  EXPECT_EQ(all->connections, config->connections);
  EXPECT_EQ(all->max_node_transfers, config->max_node_transfers);
  ASSERT_EQ(all->uplink.size(), 1u);  // an example, not a default
  EXPECT_EQ(all->uplink[0].from_minute, 8 * 60);
  EXPECT_EQ(all->uplink[0].to_minute, 18 * 60);
  EXPECT_EQ(all->uplink[0].mbit_per_s, 200);
  EXPECT_EQ(all->common.port, config->common.port);
  EXPECT_EQ(all->common.listen, config->common.listen);
  EXPECT_EQ(all->common.prefix, config->common.prefix);
  EXPECT_EQ(all->common.state_dir, config->common.state_dir);
  EXPECT_EQ(all->common.log_level, config->common.log_level);
  EXPECT_EQ(all->common.broker.port, config->common.broker.port);
  EXPECT_EQ(all->walrus_ca_file, config->walrus_ca_file);
  EXPECT_EQ(config->cluster_broker, config->common.broker);
  EXPECT_EQ(all->cluster_broker, config->cluster_broker);
}

TEST(CcConfig, TheNodesBrokerIsClcsUnlessAKeySaysOtherwise) {
  const testing::TempDir dir;
  const auto load = [&](const std::string& table) {
    return load_config(dir.write(
        "cc.conf",
        "host = \"cc2\"\nwalrus_url = \"http://w:1\"\ndata_key_file = \"/k\"\n[broker]\nhost = \"mq\"\n"
        "port = 5671\nuser = \"cc-cc2\"\npassword_file = \"/p\"\ntls_ca_file = \"/ca\"\n[cluster_broker]\n" +
            table));
  };
  const auto same = load("");
  ASSERT_TRUE(same) << same.error().message;
  EXPECT_EQ(same->cluster_broker, same->common.broker);
  const auto other = load("vhost = \"cc2\"\n");
  ASSERT_TRUE(other) << other.error().message;
  EXPECT_EQ(other->common.broker.vhost, "/");
  EXPECT_EQ(other->cluster_broker.vhost, "cc2");
  EXPECT_EQ(other->cluster_broker.host, "mq");
  EXPECT_EQ(other->cluster_broker.tls_ca_file, "/ca");
  const auto wrong = load("port = 0\n");
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().message.find("cluster_broker.port"), std::string::npos);
}

TEST(CcConfig, AWrongFileIsNamedWithItsKey) {
  const testing::TempDir dir;
  const auto message_of = [&](const std::string& extra) {
    const auto config = load_config(
        dir.write("cc.conf", "host = \"cc1\"\nwalrus_url = \"http://w:1\"\ndata_key_file = \"/k\"\n" + extra +
                                 "\n[broker]\nuser = \"cc-cc1\"\npassword_file = \"/p\"\n"));
    return config ? std::string() : config.error().message;
  };
  EXPECT_EQ(message_of(""), "");
  EXPECT_NE(message_of("cache_byte = 1").find("cache_byte"), std::string::npos);
  EXPECT_NE(message_of("cache_bytes = \"all\"").find("cache_bytes"), std::string::npos);
  EXPECT_NE(message_of("port = 99999").find("port"), std::string::npos);
  EXPECT_NE(message_of("[peers]\nenabled = 1").find("peers.enabled"), std::string::npos);
  EXPECT_NE(message_of("[limits]\nconnections = 0").find("limits.connections"), std::string::npos);
  EXPECT_NE(message_of("[limits]\nuplink = 5").find("limits.uplink"), std::string::npos);
}

TEST(CcConfig, WindowsOfTheUplinkAreStrict) {
  const testing::TempDir dir;
  const auto message_of = [&](const std::string& windows) {
    const auto config = load_config(
        dir.write("cc.conf", "host = \"cc1\"\nwalrus_url = \"http://w:1\"\ndata_key_file = \"/k\"\n" +
                                 windows + "\n[broker]\nuser = \"cc-cc1\"\npassword_file = \"/p\"\n"));
    return config ? std::string() : config.error().message;
  };
  const auto window = [](const std::string& from, const std::string& to, const std::string& rate) {
    return "[[limits.uplink]]\nfrom = \"" + from + "\"\nto = \"" + to + "\"\nmbit_per_s = " + rate + "\n";
  };
  const auto names = [](const std::string& message, const std::string& what) {
    return message.find(what) != std::string::npos;
  };
  EXPECT_EQ(message_of(window("08:00", "18:00", "200") + window("18:00", "08:00", "1")), "");
  EXPECT_TRUE(names(message_of(window("8:00", "18:00", "200")), "HH:MM"));
  EXPECT_TRUE(names(message_of(window("08:00", "24:00", "200")), "24:00"));
  EXPECT_TRUE(names(message_of(window("08:00", "18:00", "0")), "mbit_per_s"));
  EXPECT_TRUE(names(message_of(window("08:00", "18:00", "100001")), "mbit_per_s"));
  EXPECT_TRUE(names(message_of(window("08:00", "18:00", "1") + window("17:59", "19:00", "1")), "overlap"));
  EXPECT_TRUE(names(message_of("[[limits.uplink]]\nfrom = \"08:00\"\nmbit_per_s = 1\n"), "'to' is missing"));
  EXPECT_TRUE(names(message_of(window("08:00", "18:00", "1") + "until = 1\n"), "'until'"));
}

}  // namespace
}  // namespace educloud::cc
