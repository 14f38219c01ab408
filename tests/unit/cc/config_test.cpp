#include "cc/app/config.hpp"

#include <gtest/gtest.h>

#include "support/temp_dir.hpp"

namespace educloud::cc {
namespace {

TEST(CcConfig, TheExampleLoadsAndTellsTheDefaults) {
  const auto path = std::filesystem::path(EDUCLOUD_SOURCE_DIR) / "config" / "cc.conf";
  const auto config = load_config(path);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->common.host, "cc1");
  EXPECT_EQ(config->common.broker.user, "cc-cc1");
  EXPECT_EQ(config->common.port, 8002);
  EXPECT_EQ(config->cache_max_bytes, 107374182400);

  // With every commented key live, the values are the defaults that the comments claim.
  auto text = testing::slurp(path);
  for (auto at = text.find("\n#"); at != std::string::npos; at = text.find("\n#", at + 1)) {
    if (text[at + 2] != ' ') text.erase(at + 1, 1);
  }
  const testing::TempDir dir;
  const auto all = load_config(dir.write("cc.conf", text));
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_EQ(all->cache_max_bytes, config->cache_max_bytes);
  EXPECT_EQ(all->max_upload_bytes, config->max_upload_bytes);
  EXPECT_EQ(all->common.port, config->common.port);
  EXPECT_EQ(all->common.listen, config->common.listen);
  EXPECT_EQ(all->common.prefix, config->common.prefix);
  EXPECT_EQ(all->common.state_dir, config->common.state_dir);
  EXPECT_EQ(all->common.log_level, config->common.log_level);
  EXPECT_EQ(all->common.broker.port, config->common.broker.port);
  EXPECT_EQ(all->walrus_ca_file, config->walrus_ca_file);
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
  EXPECT_NE(message_of("cache_max_byte = 1").find("cache_max_byte"), std::string::npos);
  EXPECT_NE(message_of("cache_max_bytes = \"all\"").find("cache_max_bytes"), std::string::npos);
  EXPECT_NE(message_of("port = 99999").find("port"), std::string::npos);
}

}  // namespace
}  // namespace educloud::cc
