// Clouds with several clusters: who is in which vhost, and may do what there.
#include <gmock/gmock.h>

#include "cli/init/confs.hpp"
#include "cli/init/definitions.hpp"
#include "cli/init/options.hpp"

namespace educloud::cli {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

InitArguments three_clusters() {
  InitArguments arguments;
  arguments.host = "main";
  arguments.clusters = {"cc1", "cc2", "cc3"};
  arguments.nodes = {"nc1", "nc2@cc2", "nc3@cc3", "nc4@cc2"};
  arguments.addresses = {"main=10.0.0.1", "cc1=10.0.0.2",  "cc2=10.0.0.3",  "cc3=10.0.0.4",
                         "nc1=10.0.0.11", "nc2=10.0.0.12", "nc3=10.0.0.13", "nc4=10.0.0.14"};
  return arguments;
}

InitPlan plan_of(InitArguments arguments) {
  auto plan = make_plan(std::move(arguments));
  EXPECT_TRUE(plan) << plan.error().message;
  return plan ? *plan : InitPlan{};
}

Secrets secrets_of(const InitPlan& plan) {
  Secrets secrets;
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

/// "name" (or another key) of all objects of one kind in `vhost`, sorted.
std::vector<std::string> in_vhost(const json& list, const std::string& vhost, const char* key = "name") {
  std::vector<std::string> out;
  for (const auto& one : list) {
    if (one["vhost"] == vhost) out.push_back(one[key]);
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// "write / read" of `user` in `vhost`; empty if he may not even connect to it.
std::string rights(const json& definitions, const std::string& vhost, const std::string& user) {
  for (const auto& one : definitions["permissions"]) {
    if (one["vhost"] == vhost && one["user"] == user)
      return one["write"].get<std::string>() + " / " + one["read"].get<std::string>();
  }
  return {};
}

std::string content(const InitPlan& plan, const std::string& path) {
  for (const auto& file : plan_files(plan, secrets_of(plan))) {
    if (file.path == path) return file.content;
  }
  return "no " + path;
}

TEST(Clusters, TheFirstStaysInTheCloudsVhostTheOthersHaveTheirOwn) {
  const auto definitions = definitions_of(plan_of(three_clusters()));
  EXPECT_EQ(definitions["vhosts"], json::parse(R"([{"name":"/"},{"name":"cc2"},{"name":"cc3"}])"));
  EXPECT_THAT(
      in_vhost(definitions["queues"], "cc2"),
      ElementsAre("cc_heartbeat_queue", "cc_status_queue", "console_tap_queue", "dead_letter_queue",
                  "nc_cmd_queue.nc2", "nc_cmd_queue.nc4", "nc_lease_queue.nc2", "nc_lease_queue.nc4"));
  EXPECT_THAT(in_vhost(definitions["exchanges"], "cc2"), ElementsAre("cc_status", "dead_letter", "nc_cmd"));
  EXPECT_THAT(in_vhost(definitions["queues"], "/"),
              ElementsAre("cc_cmd_queue.cc1", "cc_cmd_queue.cc2", "cc_cmd_queue.cc3", "cc_heartbeat_queue",
                          "cc_status_queue", "clc_heartbeat_queue", "clc_status_queue", "console_tap_queue",
                          "dead_letter_queue", "nc_cmd_queue.nc1", "nc_lease_queue.nc1", "walrus_cmd_queue"));
  EXPECT_EQ(in_vhost(definitions["policies"], "cc3"), in_vhost(definitions["policies"], "/"));
  for (const auto& name : in_vhost(definitions["queues"], "cc3")) {
    const auto bound = in_vhost(definitions["bindings"], "cc3", "destination");
    EXPECT_NE(std::find(bound.begin(), bound.end(), name), bound.end()) << name;
  }
}

TEST(Clusters, EachHasRightsOnlyWhereItBelongs) {
  const auto definitions = definitions_of(plan_of(three_clusters()));
  EXPECT_EQ(rights(definitions, "/", "cc-cc1"),
            "^(nc_cmd|clc_status)$ / ^(cc_cmd_queue\\.cc1|cc_(status|heartbeat)_queue)$");
  EXPECT_EQ(rights(definitions, "/", "cc-cc2"), "^clc_status$ / ^cc_cmd_queue\\.cc2$");
  EXPECT_EQ(rights(definitions, "cc2", "cc-cc2"), "^nc_cmd$ / ^cc_(status|heartbeat)_queue$");
  EXPECT_EQ(rights(definitions, "cc2", "nc-nc2"), "^cc_status$ / ^nc_(cmd|lease)_queue\\.nc2$");
  EXPECT_EQ(rights(definitions, "/", "nc-nc1"), "^cc_status$ / ^nc_(cmd|lease)_queue\\.nc1$");
  for (const auto* vhost : {"/", "cc2", "cc3"})
    EXPECT_EQ(rights(definitions, vhost, "operator"), "^$ / ^(console_tap_queue|dead_letter_queue)$");
  EXPECT_THAT(in_vhost(definitions["permissions"], "cc3", "user"),
              ElementsAre("cc-cc3", "nc-nc3", "operator"));
  EXPECT_THAT(in_vhost(definitions["permissions"], "/", "user"),
              ElementsAre("cc-cc1", "cc-cc2", "cc-cc3", "clc", "nc-nc1", "operator", "walrus"));
  // A topic permission that is missing would allow every key.
  EXPECT_THAT(in_vhost(definitions["topic_permissions"], "cc2", "user"), ElementsAre("nc-nc2", "nc-nc4"));
  EXPECT_THAT(in_vhost(definitions["topic_permissions"], "/", "user"),
              ElementsAre("cc-cc1", "cc-cc2", "cc-cc3", "nc-nc1", "walrus"));
  EXPECT_EQ(definitions["users"].size(), 3u + 3u + 4u) << "each once";
}

TEST(Clusters, TheConfigsNameTheVhostOfTheNodesSide) {
  const auto plan = plan_of(three_clusters());
  EXPECT_THAT(content(plan, "/etc/educloud/hosts/cc1/cc.conf"), Not(HasSubstr("vhost")));
  EXPECT_THAT(content(plan, "/etc/educloud/hosts/nc1/nc.conf"), Not(HasSubstr("vhost")));
  EXPECT_THAT(content(plan, "/etc/educloud/hosts/cc2/cc.conf"),
              HasSubstr("[cluster_broker]\nvhost = \"cc2\"\n"));
  EXPECT_THAT(content(plan, "/etc/educloud/hosts/nc4/nc.conf"),
              HasSubstr("\nvhost = \"cc2\"\nuser = \"nc-nc4\""));
}

TEST(Clusters, OneNeedsNoVhostOfItsOwn) {
  auto arguments = three_clusters();
  arguments.clusters = {"cc1"};
  arguments.nodes = {"nc1"};
  arguments.addresses = {};
  EXPECT_EQ(definitions_of(plan_of(arguments))["vhosts"], json::parse(R"([{"name":"/"}])"));
}

TEST(Clusters, ALaterRunChangesNoClustersVhost) {
  auto arguments = three_clusters();
  arguments.clusters = {"cc1"};
  arguments.nodes = {"nc1"};
  arguments.addresses = {};
  const auto cloud = cluster_of_cloud_vhost(definitions_of(plan_of(arguments)).dump());
  ASSERT_TRUE(cloud) << cloud.error().message;
  EXPECT_EQ(*cloud, "cc1");
  arguments = three_clusters();
  arguments.cloud_cluster = *cloud;
  std::swap(arguments.clusters[0], arguments.clusters[2]);
  arguments.nodes[0] = "nc1@cc1";
  const auto plan = plan_of(arguments);
  EXPECT_THAT(plan.vhosts(), ElementsAre("/", "cc3", "cc2"));
  EXPECT_EQ(plan.clusters[2].name, "cc1");
  EXPECT_EQ(plan.clusters[2].vhost, "/");

  // The cloud's cluster is given up: nobody takes its place, because the others' nodes are where they are.
  arguments.clusters = {"cc2", "cc3"};
  arguments.nodes = {"nc2@cc2"};
  arguments.addresses = {};
  const auto rest = definitions_of(plan_of(arguments));
  EXPECT_EQ(rights(rest, "/", "cc-cc2"), "^clc_status$ / ^cc_cmd_queue\\.cc2$");
  EXPECT_EQ(cluster_of_cloud_vhost(rest.dump()).value_or("?"), "");
}

TEST(Clusters, ADefinitionsFileThatIsNoneIsNamed) {
  for (const auto* text : {"", "[1,2", "[]", "{}", R"({"users":[]})"}) {
    const auto refused = cluster_of_cloud_vhost(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code, ErrorCode::corrupt);
  }
  EXPECT_EQ(cluster_of_cloud_vhost(R"({"permissions":[7,{"user":3},{"user":"cc-x"}]})").value_or("?"), "");
}

}  // namespace
}  // namespace educloud::cli
