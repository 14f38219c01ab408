#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "common/msg/command.hpp"
#include "common/msg/host_status.hpp"
#include "common/msg/inventory.hpp"
#include "common/msg/lease.hpp"
#include "common/msg/task_status.hpp"
#include "schema.hpp"
#include "support/paths.hpp"
#include "support/temp_dir.hpp"

namespace educloud::msg {
namespace {

using educloud::testing::slurp;
const std::filesystem::path kProto = test::source_dir() / "proto";

/// proto/<name>.schema.json is what the field list says, and proto/<name>.example.json decodes and comes back
/// whole.
template <class T>
void check_proto(const std::string& name) {
  auto schema = schema_of<T>(Rule{});
  schema["$schema"] = "https://json-schema.org/draft/2020-12/schema";
  schema["title"] = name;
  const auto file = kProto / (name + ".schema.json");
  if (std::getenv("EDUCLOUD_UPDATE_DOCS") != nullptr) std::ofstream(file) << schema.dump(2) << "\n";
  EXPECT_EQ(slurp(file), schema.dump(2) + "\n")
      << file << " differs from the struct; run this test with EDUCLOUD_UPDATE_DOCS=1 and review the change";

  const std::string example = slurp(kProto / (name + ".example.json"));
  const auto value = parse<T>(example);
  ASSERT_TRUE(value) << name << ": " << value.error().message;
  EXPECT_EQ(encode(*value), nlohmann::json::parse(example)) << "the example must show every key";
  const auto again = parse<T>(serialize(*value));
  ASSERT_TRUE(again);
  EXPECT_EQ(encode(*again), encode(*value));
}

TEST(Proto, TaskStatus) {
  check_proto<TaskStatus>("taskstatus");
}
TEST(Proto, NodeStatus) {
  check_proto<NodeStatus>("nodestatus");
}
TEST(Proto, CcStatus) {
  check_proto<CcStatus>("ccstatus");
}
TEST(Proto, Inventory) {
  check_proto<Inventory>("inventory");
}
TEST(Proto, Lease) {
  check_proto<Lease>("lease");
}
TEST(Proto, Command) {
  check_proto<Command>("cmd");
}

nlohmann::json example(const std::string& name) {
  return nlohmann::json::parse(slurp(kProto / (name + ".example.json")));
}

TEST(Codec, ReadsThePredecessorsStatusWithoutOurKeys) {
  const auto status = parse<TaskStatus>(R"({"type":"taskstatus","phase":"preparing","state":"downloading",
    "progress":0,"tid":"IMG00000001:IMG00000001:VD00000001","prompt":"","errormsg":"","failed":0,"done":1})");
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(status->done, 1);
  EXPECT_EQ(status->epoch, 0);
}

TEST(Codec, KnowsWhatAMessageSaysItIs) {
  EXPECT_TRUE(is_type(slurp(kProto / "lease.example.json"), "lease"));
  EXPECT_FALSE(is_type(slurp(kProto / "inventory.example.json"), "lease"));
  for (const auto* text : {"", "lease", "{", "[\"lease\"]", R"({"type":["lease"]})", R"({"op":"lease"})"}) {
    EXPECT_FALSE(is_type(text, "lease")) << text;
  }
}

TEST(Codec, IgnoresUnknownKeys) {
  auto json = example("taskstatus");
  json["invented_in_2030"] = {{"a", 1}};
  EXPECT_TRUE(from_json<TaskStatus>(json));
}

TEST(Codec, NamesTheMissingKey) {
  auto json = example("cmd");
  json["runtime_option"]["disks"][0].erase("mtype");
  const auto refused = from_json<Command>(json);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().key, "runtime_option.disks[0].mtype");
}

TEST(Codec, NamesTheMistypedKey) {
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, nlohmann::json>>{{"progress", "50"},
                                                           {"progress", 50.5},
                                                           {"failed", true},
                                                           {"tid", 7},
                                                           {"epoch", nullptr},
                                                           {"prompt", nlohmann::json::array()}}) {
    auto json = example("taskstatus");
    json[key] = value;
    const auto refused = from_json<TaskStatus>(json);
    ASSERT_FALSE(refused) << key << " = " << value;
    EXPECT_EQ(refused.error().key, key);
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
  }
}

TEST(Codec, RefusesValuesOutOfBounds) {
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, nlohmann::json>>{{"progress", 101},
                                                           {"failed", 2},
                                                           {"epoch", -1},
                                                           {"seq", 18446744073709551615ull},
                                                           {"tid", std::string(65, 'x')},
                                                           {"phase", "dreaming"}}) {
    auto json = example("taskstatus");
    json[key] = value;
    const auto refused = from_json<TaskStatus>(json);
    ASSERT_FALSE(refused) << key << " = " << value;
    EXPECT_EQ(refused.error().key, key);
  }
}

TEST(Codec, RefusesWhatIsNotJson) {
  for (const std::string& bad : {std::string(""), std::string("{"), std::string("{}}"), std::string("[1,]"),
                                 std::string("\xff\xfe"), std::string(R"({"a":)") + "\x01}"}) {
    EXPECT_FALSE(parse<TaskStatus>(bad)) << bad;
  }
  EXPECT_FALSE(parse<TaskStatus>("[]"));
  EXPECT_FALSE(parse<TaskStatus>("null"));
}

TEST(Codec, RefusesDeepAndLargeInputBeforeUsingIt) {
  const auto deep = parse_json(std::string(30'000, '[') + std::string(30'000, ']'));
  ASSERT_FALSE(deep);
  EXPECT_NE(deep.error().message.find("nested"), std::string::npos);
  const auto large = parse_json("\"" + std::string(limits::kMessageBytes, 'x') + "\"");
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().code, ErrorCode::too_large);
}

TEST(Codec, BytesThatAreNotUtf8DoNotBreakAMessage) {
  TaskStatus status;
  status.errormsg = "guest said \xff\xfe";
  EXPECT_NE(serialize(status).find("guest said"), std::string::npos);
}

}  // namespace
}  // namespace educloud::msg
