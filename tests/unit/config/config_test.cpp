#include <gtest/gtest.h>

#include "common/config/daemon_config.hpp"
#include "support/temp_dir.hpp"

namespace educloud::config {
namespace {

class ConfigTest : public ::testing::Test {
 protected:
  /// The error of reading `text` as a daemon's file, or "".
  std::string problem_of(const std::string& text) {
    auto reader = Reader::open(dir_.write("x.conf", text));
    if (!reader) return reader.error().message;
    DaemonConfig config;
    read_common(*reader, config);
    const auto ok = reader->finish();
    return ok ? "" : ok.error().message;
  }
  testing::TempDir dir_;
  const std::string kGood =
      "host = \"nc1\"\nport = 8003\n[broker]\nuser = \"nc-nc1\"\npassword_file = \"/etc/educloud/pw\"\n";
};

TEST_F(ConfigTest, ReadsAGoodFile) {
  auto reader = Reader::open(dir_.write("x.conf", kGood));
  ASSERT_TRUE(reader);
  DaemonConfig config;
  read_common(*reader, config);
  ASSERT_TRUE(reader->finish());
  EXPECT_EQ(config.host, "nc1");
  EXPECT_EQ(config.port, 8003);
  EXPECT_EQ(config.prefix, "/storage");
  EXPECT_EQ(config.broker.user, "nc-nc1");
}

TEST_F(ConfigTest, NamesFileLineKeyAndRule) {
  const std::string text =
      problem_of("host = \"nc1\"\nport = 70000\n[broker]\nuser=\"u\"\npassword_file=\"/p\"\n");
  EXPECT_NE(text.find("x.conf:2"), std::string::npos) << text;
  EXPECT_NE(text.find("'port' must be from 0 to 65535, not 70000"), std::string::npos) << text;
}

TEST_F(ConfigTest, RefusesUnknownKeysAndWrongTypes) {
  EXPECT_NE(problem_of(kGood + "passwrod = \"x\"\n").find("'broker.passwrod' is not a key"),
            std::string::npos);
  EXPECT_NE(problem_of("colour = 3\n" + kGood).find("'colour'"), std::string::npos);
  EXPECT_NE(problem_of("prefix = 7\n" + kGood).find("'prefix' must be a string"), std::string::npos);
  EXPECT_NE(problem_of("prefix = \"storage\"\n" + kGood).find("absolute"), std::string::npos);
  EXPECT_NE(problem_of("log_level = \"loud\"\n" + kGood).find("debug|info|warn|error"), std::string::npos);
  EXPECT_NE(problem_of("log_level = \"debug|info\"\n" + kGood).find("must be one of"), std::string::npos);
}

TEST_F(ConfigTest, RefusesMissingKeysAndFiles) {
  EXPECT_NE(problem_of("[broker]\nuser=\"u\"\npassword_file=\"/p\"\n").find("'host' is missing"),
            std::string::npos);
  EXPECT_NE(problem_of("host = ").find("x.conf:1"), std::string::npos);
  EXPECT_FALSE(Reader::open(dir_ / "nowhere.conf"));
}

}  // namespace
}  // namespace educloud::config
