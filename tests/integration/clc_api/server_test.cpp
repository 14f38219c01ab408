// Servers over HTTP: who may, and what a wrong value is answered.
#include "integration/clc_api/fixture.hpp"

namespace educloud::clc {
namespace {

constexpr const char* kDesktop = "IMG0000abcd";
constexpr const char* kServer = "IMG0000beef";
constexpr const char* kDatabase = "IMG0000feed";

class ServerApi : public ApiTest {
 protected:
  void SetUp() override {
    ApiTest::SetUp();
    add_ready_image(kDesktop, "office");
    add_ready_image(kServer, "wiki");
    add_ready_image(kDatabase, "wiki's data");
    const auto paired = store_->write([](store::Sql& sql) -> Result<> {
      auto server = *store::find_image(sql, kServer);
      server.usage = "server";
      server.database_imgid = kDatabase;
      store::update_image(sql, server);
      auto disk = *store::find_image(sql, kDatabase);
      disk.usage = "database";
      store::update_image(sql, disk);
      store::give_database(sql, kServer, 1);
      return {};
    });
    ASSERT_TRUE(paired);
    admin_ = token_of("admin");
    anna_ = token_of("anna");
  }
  http::ClientResponse define(const nlohmann::json& body) { return call("POST", "/vms", anna_, body.dump()); }
  std::string admin_, anna_;
};

TEST_F(ServerApi, AServerIsDefinedByWhoeverMayDefine) {
  const auto made = define({{"imgid", kServer}, {"kind", "VS"}, {"folder_protocol", "smb"}});
  ASSERT_EQ(made.status, 201) << made.body;
  const auto vm = json_of(made);
  EXPECT_EQ(vm["kind"], "VS");
  EXPECT_EQ(vm["vmtype"], "vssmall");
  EXPECT_EQ(vm["autostart"], true);
  EXPECT_EQ(vm["folder_protocol"], "smb");
  EXPECT_EQ(vm["disk_cluster"], "");
  EXPECT_EQ(json_of(define({{"imgid", kServer}, {"kind", "VS"}, {"autostart", false}}))["autostart"], false);
  const auto desktop = json_of(define({{"imgid", kDesktop}}));
  EXPECT_EQ(desktop["kind"], "VD");
  EXPECT_EQ(desktop["autostart"], false);
  EXPECT_EQ(desktop["folder_protocol"], "virtiofs");
  EXPECT_EQ(json_of(call("GET", "/vms", anna_))["items"].size(), 3u);
}

TEST_F(ServerApi, HowAVmStartsIsChangedByItsOwner) {
  const std::string vm =
      "/vms/" + json_of(define({{"imgid", kServer}, {"kind", "VS"}}))["insid"].get<std::string>();
  const std::string body = R"({"name":"wiki","autostart":false,"folder_protocol":"smb"})";
  EXPECT_EQ(call("PATCH", vm, token_of("ben"), body).status, 404);
  EXPECT_EQ(call("PATCH", vm, {}, body).status, 401);
  ASSERT_EQ(call("PATCH", vm, anna_, body).status, 200);
  const auto shown = json_of(call("PATCH", vm, admin_, "{}"));
  EXPECT_EQ(shown["name"], "wiki");
  EXPECT_EQ(shown["autostart"], false);
  EXPECT_EQ(shown["folder_protocol"], "smb");
  for (const std::string key : {"name", "autostart", "folder_protocol"}) {
    const auto refused =
        call("PATCH", vm, anna_, nlohmann::json{{key, key == "autostart" ? "yes" : "a/b"}}.dump());
    EXPECT_EQ(refused.status, 400) << key;
    EXPECT_EQ(error_of(refused)["key"], key);
  }
}

TEST_F(ServerApi, ImagesAreForOneOrTheOther) {
  for (const auto& [image, kind] : std::vector<std::pair<const char*, const char*>>{
           {kDesktop, "VS"}, {kServer, "VD"}, {kServer, "TVD"}}) {
    const auto refused = define({{"imgid", image}, {"kind", kind}});
    EXPECT_EQ(refused.status, 409) << image << kind;
    EXPECT_EQ(error_of(refused)["key"], "kind");
  }
  EXPECT_EQ(define({{"imgid", kDatabase}, {"kind", "VS"}}).status, 409);
  EXPECT_EQ(error_of(define({{"imgid", kServer}, {"kind", "TMP"}}))["key"], "kind");
  EXPECT_EQ(error_of(define({{"imgid", kServer}, {"kind", "VS"}, {"folder_protocol", "nfs"}}))["key"],
            "folder_protocol");
  EXPECT_EQ(error_of(define({{"imgid", kServer}, {"kind", "VS"}, {"autostart", 1}}))["key"], "autostart");
}

TEST_F(ServerApi, WhatAnImageIsForIsChangedByItsOwner) {
  const std::string path = std::string("/images/") + kDesktop;
  const std::string server = R"({"usage":"server","database_gib":2})";
  EXPECT_EQ(call("PATCH", path, anna_, server).status, 403);
  EXPECT_EQ(call("PATCH", path, {}, server).status, 401);
  EXPECT_EQ(error_of(call("PATCH", path, admin_, R"({"usage":"database"})"))["key"], "usage");
  EXPECT_EQ(error_of(call("PATCH", path, admin_, R"({"usage":"server","database_gib":70000})"))["key"],
            "database_gib");
  EXPECT_EQ(error_of(call("PATCH", path, admin_, R"({"database_gib":2})"))["key"], "database_gib");
  const auto changed = call("PATCH", path, admin_, server);
  ASSERT_EQ(changed.status, 200) << changed.body;
  EXPECT_EQ(json_of(changed)["database_state"], "making");
  EXPECT_NE(json_of(changed)["tid"], "");
  EXPECT_EQ(call("PATCH", path, admin_, server).status, 400) << "it has one in the making";
  EXPECT_EQ(define({{"imgid", kDesktop}, {"kind", "VD"}}).status, 409);
  const auto renamed = call("PATCH", path, admin_, R"({"name":"office 2","description":"new"})");
  EXPECT_EQ(json_of(renamed)["name"], "office 2");
  EXPECT_EQ(json_of(call("PATCH", path, admin_, R"({"clear_description":true})"))["description"], "");
  EXPECT_EQ(call("PATCH", path, admin_, R"({"name":"wiki"})").status, 409);
  const auto versions = json_of(call("GET", std::string("/images/") + kServer + "/versions", anna_));
  EXPECT_EQ(versions["items"][0]["database_version"], 1);
}

TEST_F(ServerApi, HowDisksAreReachedIsTheAdministratorsToSay) {
  const std::string body = R"({"database_mode":"nbd"})";
  EXPECT_EQ(call("PATCH", "/clusters/cc1", anna_, body).status, 403);
  EXPECT_EQ(call("PATCH", "/clusters/cc1", {}, body).status, 401);
  EXPECT_EQ(call("PATCH", "/clusters/cc2", admin_, body).status, 404);
  EXPECT_EQ(call("PATCH", "/clusters/..", admin_, body).status, 400);
  EXPECT_EQ(error_of(call("PATCH", "/clusters/cc1", admin_, R"({"database_mode":"ftp"})"))["key"],
            "database_mode");
  EXPECT_EQ(json_of(call("PATCH", "/clusters/cc1", admin_, body))["database_mode"], "nbd");
  EXPECT_EQ(json_of(call("GET", "/status", admin_))["clusters"][0]["database_mode"], "nbd");
  const std::string copy = R"({"database_mode":"copy"})";
  EXPECT_EQ(json_of(call("PATCH", "/clusters/cc1", admin_, copy))["database_mode"], "copy");
}

}  // namespace
}  // namespace educloud::clc
