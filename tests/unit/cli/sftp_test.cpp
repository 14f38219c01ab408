#include <gmock/gmock.h>

#include "cli/init/confs.hpp"
#include "cli/init/ssh_keys.hpp"

namespace educloud::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

InitPlan plan_of(std::vector<std::string> addresses, const std::string& files_user = "educloud-files") {
  InitArguments arguments;
  arguments.host = "main";
  arguments.clusters = {"cc1"};
  arguments.nodes = {"nc1", "nc2"};
  arguments.addresses = std::move(addresses);
  arguments.prefix = "/storage";
  arguments.files_user = files_user;
  return *make_plan(std::move(arguments));
}

Secrets secrets_of(const InitPlan& plan) {
  Secrets secrets;
  secrets.data_key = std::string(64, 'd');
  for (const auto& user : plan.broker_users()) secrets.passwords[user] = "p";
  for (const auto& node : plan.nodes) {
    secrets.node_keys[node.name] = "k";
    secrets.folder_keys[node.name] = make_ssh_key();
  }
  for (const auto& cluster : plan.clusters) {
    if (plan.mounts_folders(cluster)) secrets.cc_folder_keys[cluster.name] = make_ssh_key();
  }
  secrets.sftp_host_key = make_ssh_key();
  return secrets;
}

std::string content(const std::vector<PlannedFile>& files, const std::string& path) {
  for (const auto& file : files) {
    if (file.path == path) return file.content;
  }
  return "no " + path;
}

TEST(Sftp, AKeyPairReadsBack) {
  const auto key = make_ssh_key();
  const auto open = ssh_public_key(key);
  ASSERT_TRUE(open);
  EXPECT_THAT(*open, ::testing::StartsWith("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"));
  EXPECT_EQ(open->size(), 12u + 68u);
  EXPECT_NE(key, make_ssh_key());
  EXPECT_FALSE(ssh_public_key(key.substr(0, key.size() / 2)));
  EXPECT_FALSE(
      ssh_public_key("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"));
}

TEST(Sftp, NodesElsewhereGoThroughTheirClustersController) {
  const auto plan = plan_of({"main=10.0.0.1", "cc1=10.0.0.2", "nc1=10.0.0.3", "nc2=10.0.0.1"});
  const auto secrets = secrets_of(plan);
  const auto files = plan_files(plan, secrets);
  const std::string out = "/etc/educloud/hosts/";
  const auto far = content(files, out + "nc1/nc.conf");
  EXPECT_THAT(far, HasSubstr("[folders]\nhost = \"10.0.0.2\"\nport = 8022\nuser = \"educloud-files\"\n"));
  EXPECT_THAT(far, HasSubstr("key_file = \"/etc/educloud/secrets/folders-nc1.key\""));
  EXPECT_EQ(content(files, out + "nc1/secrets/folders-nc1.key"), secrets.folder_keys.at("nc1") + "\n");
  EXPECT_THAT(content(files, out + "cc1/cc.conf"),
              HasSubstr("[folders]\nport = 8022\nwalrus_host = \"10.0.0.1\"\nwalrus_port = 8022\n"));
  EXPECT_THAT(content(files, "/etc/educloud/nc.conf"),
              HasSubstr("[folders]\nlocal = \"/storage/walrus/space\"\n"));
}

TEST(Sftp, AClustersControllerMountsThemWhereItIsRoot) {
  const auto plan = plan_of({"main=10.0.0.1", "cc1=10.0.0.2", "nc1=10.0.0.3", "nc2=10.0.0.4"}, "root");
  const auto secrets = secrets_of(plan);
  const auto files = plan_files(plan, secrets);
  const auto conf = content(files, "/etc/educloud/hosts/cc1/cc.conf");
  EXPECT_THAT(
      conf,
      HasSubstr("mount = true\nuser = \"root\"\nkey_file = \"/etc/educloud/secrets/cc-folders-cc1.key\"\n"));
  EXPECT_EQ(content(files, "/etc/educloud/hosts/cc1/secrets/cc-folders-cc1.key"),
            secrets.cc_folder_keys.at("cc1") + "\n");
  const auto keys = content(*plan_sftp_files(plan, secrets), "/etc/educloud/sftp/authorized_keys");
  EXPECT_EQ(std::count(keys.begin(), keys.end(), '\n'), 3);
  const auto others = plan_of({"main=10.0.0.1"}, "root");
  EXPECT_FALSE(others.mounts_folders(others.clusters.front())) << "they are on its own host";
}

TEST(Sftp, TheServerTakesOnlyTheNodesKeysAndGivesOnlyFiles) {
  const auto plan = plan_of({"main=10.0.0.1", "cc1=10.0.0.2", "nc1=10.0.0.3", "nc2=10.0.0.4"});
  const auto secrets = secrets_of(plan);
  const auto files = plan_sftp_files(plan, secrets);
  ASSERT_TRUE(files);
  const auto sshd = content(*files, "/etc/educloud/sftp/sshd_config");
  for (const char* line :
       {"ListenAddress 10.0.0.1\n", "ChrootDirectory /storage/space\n", "AllowUsers educloud-files\n",
        "PermitRootLogin no\n", "ForceCommand internal-sftp\n", "PasswordAuthentication no\n",
        "DisableForwarding yes\n"})
    EXPECT_THAT(sshd, HasSubstr(line));
  const auto keys = content(*files, "/etc/educloud/sftp/authorized_keys");
  EXPECT_EQ(std::count(keys.begin(), keys.end(), '\n'), 2);
  EXPECT_THAT(keys, HasSubstr("restrict " + *ssh_public_key(secrets.folder_keys.at("nc1")) + " nc1\n"));
  EXPECT_THAT(keys, Not(HasSubstr("PRIVATE")));
  EXPECT_EQ(content(*files, "/etc/educloud/hosts/nc1/sftp/known_hosts"),
            "educloud-walrus " + *ssh_public_key(secrets.sftp_host_key) + "\n");
}

}  // namespace
}  // namespace educloud::cli
