#include <gmock/gmock.h>

#include "cli/init/confs.hpp"
#include "cli/init/definitions.hpp"
#include "cli/init/options.hpp"

namespace educloud::cli {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

InitArguments two_nodes() {
  InitArguments arguments;
  arguments.host = "clc1";
  arguments.clusters = {"cc1"};
  arguments.nodes = {"nc1", "nc2"};
  arguments.addresses = {"clc1=10.0.0.1", "cc1=10.0.0.2", "nc1=10.0.0.11", "nc2=10.0.0.12"};
  return arguments;
}

InitPlan plan_of(InitArguments arguments) {
  auto plan = make_plan(std::move(arguments));
  EXPECT_TRUE(plan) << plan.error().message;
  return plan ? *plan : InitPlan{};
}

Secrets secrets_of(const InitPlan& plan) {
  Secrets secrets;
  secrets.data_key = "the-data-key";
  for (const auto& user : plan.broker_users()) secrets.passwords[user] = "password-of-" + user;
  for (const auto& node : plan.nodes) {
    secrets.node_keys[node.name] = "key-of-" + node.name;
    secrets.folder_keys[node.name] = "folders-of-" + node.name;
  }
  return secrets;
}

json definitions_of(const InitPlan& plan) {
  return render_definitions(plan, secrets_of(plan).passwords);
}

const json* find(const json& list, const char* key, const std::string& value) {
  for (const auto& one : list) {
    if (one[key] == value) return &one;
  }
  return nullptr;
}

TEST(InitPlan, FillsInAddressesPortsAndPlaces) {
  const auto plan = plan_of(two_nodes());
  EXPECT_EQ(plan.controller.address, "10.0.0.1");
  EXPECT_EQ(plan.arguments.broker_host, "10.0.0.1");
  ASSERT_EQ(plan.nodes.size(), 2u);
  EXPECT_EQ(plan.nodes[1].cluster, "cc1");
  EXPECT_EQ(plan.nodes[1].port, 8003);
  EXPECT_FALSE(plan.nodes[1].on_this_machine);
  EXPECT_FALSE(plan.shares_machine());
}

TEST(InitPlan, NodesOnOneAddressGetPortsOfTheirOwn) {
  InitArguments arguments;
  arguments.host = "local";
  arguments.clusters = {"cc1"};
  arguments.nodes = {"nc1", "nc2"};
  const auto plan = plan_of(arguments);
  EXPECT_EQ(plan.nodes[0].address, "127.0.0.1");
  EXPECT_EQ(plan.nodes[0].port, 8003);
  EXPECT_EQ(plan.nodes[1].port, 8004);
  EXPECT_TRUE(plan.shares_machine());
}

TEST(InitPlan, RefusesWhatCannotBe) {
  const auto key_of = [](auto change) {
    auto arguments = two_nodes();
    change(arguments);
    auto plan = make_plan(arguments);
    return plan ? std::string("accepted") : plan.error().key;
  };
  EXPECT_EQ(key_of([](auto& a) { a.nodes.push_back("../x"); }), "node");
  EXPECT_EQ(key_of([](auto& a) { a.nodes.push_back("nc1"); }), "node");
  EXPECT_EQ(key_of([](auto& a) { a.nodes.push_back("nc3@cc9"); }), "node");
  EXPECT_EQ(key_of([](auto& a) { a.clusters.clear(); }), "cluster");
  EXPECT_EQ(key_of([](auto& a) { a.host = "Upper"; }), "host");
  EXPECT_EQ(key_of([](auto& a) { a.addresses.push_back("nc1=300.1.1.1"); }), "address");
  EXPECT_EQ(key_of([](auto& a) { a.addresses.push_back("nobody=10.0.0.9"); }), "address");
  EXPECT_EQ(key_of([](auto& a) { a.cc_port = 70000; }), "cc-port");
  EXPECT_EQ(key_of([](auto& a) { a.prefix = "/storage\"\nhost = \"x"; }), "prefix");
  EXPECT_EQ(key_of([](auto& a) { a.config_dir = "relative"; }), "config-dir");
}

// The salted hash of the documentation's own form: base64(salt || sha256(salt || password)).
TEST(Definitions, HashesPasswordsTheWayRabbitDoes) {
  const auto hash = rabbit_password_hash("nc-nc1", "secret");
  EXPECT_EQ(hash.size(), 48u);  // 36 bytes
  EXPECT_EQ(hash, rabbit_password_hash("nc-nc1", "secret"));
  EXPECT_NE(hash, rabbit_password_hash("nc-nc2", "secret"));
  EXPECT_NE(hash, rabbit_password_hash("nc-nc1", "secret2"));
}

TEST(Definitions, NamesTheContractsQueuesWithTypesAndBindings) {
  const auto definitions = definitions_of(plan_of(two_nodes()));
  const std::map<std::string, std::string> wanted = {
      {"nc_cmd_queue.nc1", "quorum"},     {"nc_cmd_queue.nc2", "quorum"},   {"nc_lease_queue.nc1", "classic"},
      {"nc_lease_queue.nc2", "classic"},  {"cc_cmd_queue.cc1", "quorum"},   {"walrus_cmd_queue", "quorum"},
      {"cc_status_queue", "quorum"},      {"clc_status_queue", "quorum"},   {"cc_heartbeat_queue", "classic"},
      {"clc_heartbeat_queue", "classic"}, {"dead_letter_queue", "classic"}, {"console_tap_queue", "classic"}};
  EXPECT_EQ(definitions["queues"].size(), wanted.size());
  for (const auto& [name, type] : wanted) {
    const auto* queue = find(definitions["queues"], "name", name);
    ASSERT_NE(queue, nullptr) << name;
    EXPECT_EQ((*queue)["arguments"]["x-queue-type"], type) << name;
    EXPECT_NE(find(definitions["bindings"], "destination", name), nullptr) << name;
  }
  EXPECT_EQ(definitions["exchanges"].size(), 6u);
}

TEST(Definitions, NobodyMayConfigureAndNobodyIsGuest) {
  const auto definitions = definitions_of(plan_of(two_nodes()));
  for (const auto& one : definitions["permissions"]) EXPECT_EQ(one["configure"], "^$") << one.dump();
  EXPECT_EQ(find(definitions["users"], "name", "guest"), nullptr);
  EXPECT_EQ(definitions.dump().find("password-of-"), std::string::npos)
      << "a password stands in the definitions";
  const auto* node = find(definitions["permissions"], "user", "nc-nc1");
  ASSERT_NE(node, nullptr);
  EXPECT_EQ((*node)["read"], "^nc_(cmd|lease)_queue\\.nc1$");
}

TEST(Confs, ABundleHoldsOnlyItsHostsSecrets) {
  const auto plan = plan_of(two_nodes());
  std::vector<std::string> names;
  for (const auto& file : plan_files(plan, secrets_of(plan))) {
    names.push_back(file.path);
    EXPECT_EQ(file.mode, file.path.string().find("/secrets/") != std::string::npos ? 0600u : 0644u)
        << file.path;
    if (file.path.string().find("/hosts/nc1/") == std::string::npos) continue;
    EXPECT_THAT(file.content, Not(HasSubstr("the-data-key")));
    EXPECT_THAT(file.content, Not(HasSubstr("nc2")));
    EXPECT_THAT(file.content, Not(HasSubstr("password-of-c")));
  }
  EXPECT_THAT(names, Contains("/etc/educloud/clc.conf"));
  EXPECT_THAT(names, Contains("/etc/educloud/hosts/nc1/nc.conf"));
  EXPECT_THAT(names, Contains("/etc/educloud/hosts/nc1/secrets/broker-nc-nc1.password"));
  EXPECT_THAT(names, Contains("/etc/educloud/hosts/nc1/secrets/node-nc1.key"));
  EXPECT_THAT(names, Contains("/etc/educloud/hosts/cc1/secrets/data_key"));
  EXPECT_THAT(names, Not(Contains("/etc/educloud/hosts/nc1/secrets/data_key")));
}

TEST(Confs, UseTheDirectoriesOfThePackages) {
  auto arguments = two_nodes();
  arguments.owner = "educloud";
  const auto plan = plan_of(arguments);
  std::map<std::string, std::string> contents;
  for (const auto& file : plan_files(plan, secrets_of(plan))) contents[file.path] = file.content;
  for (const auto& [path, role] :
       std::map<std::string, std::string>{{"/etc/educloud/clc.conf", "clc"},
                                          {"/etc/educloud/walrus.conf", "walrus"},
                                          {"/etc/educloud/hosts/cc1/cc.conf", "cc"},
                                          {"/etc/educloud/hosts/nc2/nc.conf", "nc"}}) {
    EXPECT_THAT(contents[path], HasSubstr("prefix = \"/storage/" + role + "\"\n")) << path;
    EXPECT_THAT(contents[path], HasSubstr("state_dir = \"/var/lib/educloud/" + role + "\"\n")) << path;
  }
}

TEST(Confs, DaemonsOfOneMachineShareNoDirectory) {
  InitArguments arguments;
  arguments.host = "local";
  arguments.clusters = {"cc1"};
  arguments.nodes = {"nc1"};
  const auto plan = plan_of(arguments);
  std::vector<std::string> prefixes;
  for (const auto& file : plan_files(plan, secrets_of(plan))) {
    if (file.path.extension() != ".conf") continue;
    const auto at = file.content.find("\nprefix = ");
    ASSERT_NE(at, std::string::npos) << file.path;
    prefixes.push_back(file.content.substr(at + 1, file.content.find('\n', at + 1) - at));
    EXPECT_EQ(file.path.parent_path(), "/etc/educloud");
  }
  EXPECT_EQ(prefixes.size(), 4u);
  std::sort(prefixes.begin(), prefixes.end());
  EXPECT_EQ(std::unique(prefixes.begin(), prefixes.end()), prefixes.end());
}

}  // namespace
}  // namespace educloud::cli
