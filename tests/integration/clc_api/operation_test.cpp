#include "integration/clc_api/fixture.hpp"

namespace educloud::clc {
namespace {

constexpr const char* kImage = "IMG0000abcd";

class OperationTest : public ApiTest {
 protected:
  void SetUp() override {
    ApiTest::SetUp();
    add_ready_image(kImage, "ready");
    admin_ = token_of("admin");
    anna_ = token_of("anna");
    ben_ = token_of("ben");
  }
  std::string define(const nlohmann::json& more = nlohmann::json::object()) {
    nlohmann::json body = {{"imgid", kImage}, {"memory_mib", 256}};
    body.update(more);
    const auto made = call("POST", "/vms", anna_, body.dump());
    EXPECT_EQ(made.status, 201) << made.body;
    return json_of(made).value("insid", std::string());
  }
  std::string admin_, anna_, ben_;
};

TEST_F(OperationTest, AnothersDesktopIsNotThere) {
  const std::string vm = "/vms/" + define();
  for (const auto& [method, path] :
       std::vector<std::pair<std::string, std::string>>{{"POST", "/pause"},
                                                        {"POST", "/resume"},
                                                        {"POST", "/restart"},
                                                        {"PATCH", "/limits"},
                                                        {"GET", "/snapshots"},
                                                        {"POST", "/snapshots"},
                                                        {"POST", "/snapshots/snap-01234567/restore"},
                                                        {"DELETE", "/snapshots/snap-01234567"}}) {
    EXPECT_EQ(call(method, vm + path, ben_).status, 404) << method << path;
    EXPECT_EQ(call(method, vm + path).status, 401) << method << path;
  }
}

TEST_F(OperationTest, ADesktopThatDoesNotRunIsNotPaused) {
  const std::string vm = "/vms/" + define();
  for (const auto* verb : {"/pause", "/resume", "/restart", "/snapshots"})
    EXPECT_EQ(call("POST", vm + verb, anna_).status, 409) << verb;
  EXPECT_EQ(json_of(call("GET", vm + "/snapshots", anna_))["items"].size(), 0u);
  EXPECT_EQ(call("POST", vm + "/snapshots/snap-01234567/restore", anna_).status, 404);
  EXPECT_EQ(error_of(call("DELETE", vm + "/snapshots/nonsense", anna_))["key"], "snapid");
}

TEST_F(OperationTest, LimitsAreKeptAndShown) {
  const std::string vm = "/vms/" + define();
  const auto limited = call("PATCH", vm + "/limits", anna_, R"({"cpu_percent":50,"disk_iops":100})");
  ASSERT_EQ(limited.status, 202) << limited.body;
  EXPECT_EQ(json_of(call("PATCH", vm + "/limits", anna_, R"({"disk_iops":0})"))["own_limits"]["cpu_percent"],
            50)
      << "what is not spoken of stays";
  const auto shown = json_of(call("GET", vm, anna_));
  EXPECT_EQ(shown["limits"]["cpu_percent"], 50);
  EXPECT_EQ(shown["limits"]["disk_iops"], 0);
  EXPECT_TRUE(shown["first_boot"].is_null());
  const auto refused = call("PATCH", vm + "/limits", anna_, R"({"cpu_percent":5})");
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(error_of(refused)["key"], "cpu_percent");
  EXPECT_NE(refused.body.find("at least 10"), std::string::npos);
  ASSERT_EQ(
      call("PUT", "/vmtypes/vdsmall", admin_, R"({"memory_mib":4096,"cpus":1,"limits":{"cpu_percent":100}})")
          .status,
      200);
  const auto too_much = call("PATCH", vm + "/limits", anna_, R"({"cpu_percent":200})");
  EXPECT_EQ(too_much.status, 403);
  EXPECT_EQ(error_of(too_much)["key"], "cpu_percent");
  EXPECT_EQ(call("PATCH", vm + "/limits", admin_, R"({"cpu_percent":200})").status, 202);
}

TEST_F(OperationTest, WhatAGuestIsToldIsCheckedAndItsPasswordNeverShown) {
  const std::string insid = define({{"hostname", "lab-07"}, {"user", "ada"}, {"password", "open sesame"}});
  const auto shown = call("GET", "/vms/" + insid, anna_);
  const auto first = json_of(shown)["first_boot"];
  EXPECT_EQ(first["hostname"], "lab-07");
  EXPECT_EQ(first["password"], true);
  EXPECT_EQ(shown.body.find("sesame"), std::string::npos);
  EXPECT_EQ(shown.body.find("$6$"), std::string::npos);
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
           {"hostname", "-"}, {"user", "Root!"}, {"ssh_key", "nonsense"}, {"password", "a\nb"}}) {
    nlohmann::json body = {{"imgid", kImage}, {"user", "ada"}};
    body[key] = value;
    const auto refused = call("POST", "/vms", anna_, body.dump());
    EXPECT_EQ(refused.status, 400) << key;
    EXPECT_EQ(error_of(refused)["key"], key);
  }
}

TEST_F(OperationTest, AChangeOfATypeLeavesTheRest) {
  ASSERT_EQ(call("PUT", "/ostypes/bsd", admin_,
                 R"({"disk_type":"ide","nic_type":"rtl8139","sound_type":"ac97","folder_protocol":"smb"})")
                .status,
            200);
  EXPECT_EQ(call("PATCH", "/ostypes/bsd", anna_, R"({"nic_type":"e1000"})").status, 403);
  EXPECT_EQ(call("PATCH", "/ostypes/nosuch", admin_, R"({"nic_type":"e1000"})").status, 404);
  EXPECT_EQ(error_of(call("PATCH", "/ostypes/bsd", admin_, R"({"nic_type":"token ring"})"))["key"],
            "nic_type");
  const auto os = json_of(call("PATCH", "/ostypes/bsd", admin_, R"({"nic_type":"e1000"})"));
  EXPECT_EQ(os["nic_type"], "e1000");
  EXPECT_EQ(os["disk_type"], "ide");
  EXPECT_EQ(os["sound_type"], "ac97");
  EXPECT_EQ(os["folder_protocol"], "smb");

  ASSERT_EQ(call("PUT", "/vmtypes/lab", admin_,
                 R"({"memory_mib":512,"cpus":2,"limits":{"cpu_percent":100,"disk_iops":500}})")
                .status,
            200);
  EXPECT_EQ(call("PATCH", "/vmtypes/lab", anna_, R"({"cpus":1})").status, 403);
  EXPECT_EQ(call("PATCH", "/vmtypes/nosuch", admin_, R"({"cpus":1})").status, 404);
  EXPECT_EQ(error_of(call("PATCH", "/vmtypes/lab", admin_, R"({"cpus":0})"))["key"], "cpus");
  EXPECT_EQ(error_of(call("PATCH", "/vmtypes/lab", admin_, R"({"limits":{"cpu_percent":5}})"))["key"],
            "cpu_percent");
  const auto lab = json_of(call("PATCH", "/vmtypes/lab", admin_, R"({"cpus":1,"limits":{"disk_iops":0}})"));
  EXPECT_EQ(lab["memory_mib"], 512);
  EXPECT_EQ(lab["cpus"], 1);
  EXPECT_EQ(lab["limits"]["cpu_percent"], 100);
  EXPECT_EQ(lab["limits"]["disk_iops"], 0);
  EXPECT_EQ(json_of(call("GET", "/vmtypes/lab", anna_)), lab);
}

TEST_F(OperationTest, TypesAreReadByAllAndChangedByAdministrators) {
  for (const std::string path : {"/vmtypes", "/ostypes"}) {
    const bool vm = path == "/vmtypes";
    const std::string body =
        vm ? R"({"memory_mib":512,"cpus":2})" : R"({"disk_type":"sata","nic_type":"e1000"})";
    EXPECT_EQ(call("PUT", path + "/lab", anna_, body).status, 403);
    EXPECT_EQ(call("DELETE", path + "/" + (vm ? "vdlarge" : "windows"), anna_).status, 403);
    EXPECT_EQ(call("PUT", path + "/lab", admin_, "{}").status, 400);
    EXPECT_EQ(call("PUT", path + "/Lab", admin_, body).status, 400);
    ASSERT_EQ(call("PUT", path + "/lab", admin_, body).status, 200);
    EXPECT_EQ(json_of(call("GET", path + "/lab", anna_))["name"], "lab");
    EXPECT_EQ(json_of(call("GET", path, anna_))["items"].size(), vm ? 7u : 4u);
    EXPECT_EQ(call("DELETE", path + "/lab", admin_).status, 200);
    EXPECT_EQ(call("DELETE", path + "/lab", admin_).status, 404);
  }
  const auto used = call("DELETE", "/ostypes/linux", admin_);
  EXPECT_EQ(used.status, 409);
  EXPECT_NE(used.body.find("image ready"), std::string::npos);
}

}  // namespace
}  // namespace educloud::clc
