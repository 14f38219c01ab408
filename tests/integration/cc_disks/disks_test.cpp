#include <gtest/gtest.h>

#include <signal.h>

#include <fstream>
#include <random>
#include <thread>

#include "common/http/client.hpp"
#include "common/transfer/receipt.hpp"
#include "integration/cc_disks/disk_host.hpp"
#include "integration/cc_disks/initiator.hpp"

namespace educloud::test {
namespace {

using nlohmann::json;

const std::string kDatabase = "IMG000000db";
const std::string kServer = "VS00000001";

struct Answer {
  int status = 0;
  json body;
};

class Disks : public ::testing::Test {
 protected:
  Disks() {
    auto published = walrus_.publish(kDatabase, 1, sample_);
    if (!published) std::abort();
    start();
  }
  void start() { host_.emplace(dir_.path(), walrus_, port_); }

  Answer once(const std::string& method, const std::string& path, const std::string& grant,
              const json& body) {
    http::Client client(host_->url(), {});
    http::ClientRequest request;
    request.method = method;
    request.target = path + (path.find('?') == std::string::npos ? "?" : "&") + grant;
    if (!body.is_null()) request.body = body.dump();
    auto answer = client.send(request);
    if (!answer) return {0, answer.error().message};
    return {answer->status, json::parse(answer->body, nullptr, false)};
  }
  static std::string path_of(const std::string& insid, std::int64_t epoch) {
    return "/disks/" + insid + "/" + std::to_string(epoch);
  }
  /// Until it is no more "working" or busy, as a node does.
  Answer ask(const std::string& node, const std::string& method, const std::string& insid, std::int64_t epoch,
             const std::string& what, const json& body) {
    const auto path = path_of(insid, epoch);
    const bool moves = what == "/join" || what == "/keep" || what == "/leave";
    const auto grant = grant_for(node, "PUT", path + (moves ? "/move" : ""));
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{90};
    for (;;) {
      auto answer = once(method, path + what, grant, body);
      const bool again = answer.status == 202 || answer.status == 503;
      if (!again || std::chrono::steady_clock::now() > deadline) return answer;
      std::this_thread::sleep_for(std::chrono::milliseconds{20});
    }
  }
  json open_body(const std::string& node) {
    return {{"imgid", kDatabase},
            {"version", 1},
            {"digest", sample_.digest().hex()},
            {"disk_bytes", sample_.map.disk_bytes()},
            {"source_grant", grant_for(node, "GET", transfer::version_path(kDatabase, 1))}};
  }
  Answer open(const std::string& node, std::int64_t epoch, const std::string& insid = kServer) {
    return ask(node, "POST", insid, epoch, "/open", open_body(node));
  }
  Answer close(const std::string& node, std::int64_t epoch) {
    return ask(node, "POST", kServer, epoch, "/close", nullptr);
  }
  Answer submit(const std::string& node, std::int64_t epoch, int version, const std::string& cmdid) {
    return ask(node, "POST", kServer, epoch, "/submit",
               {{"imgid", kDatabase},
                {"version", version},
                {"grant", grant_for(node, "PUT", transfer::version_path(kDatabase, version))},
                {"parent", transfer::make_parent(kDatabase, 1)},
                {"if_current", transfer::make_parent(kDatabase, 1)},
                {"cmdid", cmdid}});
  }
  Initiator initiator(const Answer& opened) {
    return {port_, opened.body.value("iqn", ""), opened.body.value("user", ""),
            opened.body.value("secret", "")};
  }
  std::filesystem::path file(const std::string& insid = kServer) {
    return dir_.path() / "space/database/instances" / insid / "database";
  }
  /// What the sample disk looks like as a raw file.
  std::string sample_bytes() {
    std::string out(sample_.map.disk_bytes(), '\0');
    chunk::FrameDecoder decoder;
    for (const auto& [index, group] : sample_.map.groups()) {
      for (std::uint32_t i = 0; i < chunk::kGroupChunks; ++i) {
        if (group.chunks[i].is_hole()) continue;
        const auto& frame = sample_.frames.at(group.chunks[i]);
        auto header = chunk::decode_header(std::span(frame).first(chunk::kFrameHeaderBytes));
        const std::size_t at = (std::size_t{index} * chunk::kGroupChunks + i) * chunk::kChunkBytes;
        auto ok = decoder.decode(*header, std::span(frame).subspan(chunk::kFrameHeaderBytes),
                                 std::span(out).subspan(at, chunk::kChunkBytes));
        EXPECT_TRUE(ok);
      }
    }
    return out;
  }

  const SampleDisk sample_{100, 7};
  RealWalrus walrus_;
  const testing::TempDir dir_;
  const int port_ = free_port();
  std::optional<DiskHost> host_;
};

TEST_F(Disks, IsMadeFromTheVersionAndKeptThroughStopAndStart) {
  const auto opened = open("nc1", 1);
  ASSERT_EQ(opened.status, 200) << opened.body;
  EXPECT_EQ(opened.body["state"], "open");
  EXPECT_EQ(opened.body["portal"], "127.0.0.1:" + std::to_string(port_));
  EXPECT_EQ(opened.body["lun"], 1);
  EXPECT_TRUE(testing::slurp(file()) == sample_bytes());
  struct stat status {};
  ASSERT_EQ(::stat(file().c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, status.st_size * 3 / 4) << "holes stay holes";
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(open("nc1", 1).body, opened.body) << "the same again";

  ASSERT_TRUE(initiator(opened).io({"write -P 77 0 128k"}));
  ASSERT_EQ(close("nc1", 1).status, 200);
  EXPECT_FALSE(initiator(opened).io({"read 0 64k"}));
  ASSERT_EQ(close("nc1", 1).status, 200) << "again";
  const auto again = open("nc1", 1);
  ASSERT_EQ(again.status, 200) << again.body;
  auto kept = initiator(again).io({"read -P 77 0 128k"});
  EXPECT_TRUE(kept) << kept.error().message;
}

TEST_F(Disks, ARestartOfTheServiceKeepsDataTargetsAndSecret) {
  const auto opened = open("nc1", 3);
  ASSERT_EQ(opened.status, 200) << opened.body;
  ASSERT_TRUE(initiator(opened).io({"write -P 11 1M 64k"}));
  host_.reset();
  EXPECT_FALSE(initiator(opened).io({"read 0 64k"}));
  start();
  // Nobody asks: the targets come back by themselves.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{60};
  auto read = initiator(opened).io({"read -P 11 1M 64k"});
  while (!read && std::chrono::steady_clock::now() < deadline)
    read = initiator(opened).io({"read -P 11 1M 64k"});
  EXPECT_TRUE(read) << read.error().message;
  EXPECT_EQ(open("nc1", 3).body, opened.body);
}

TEST_F(Disks, AHigherEpochEndsTheSessionOfTheOldNode) {
  const auto old = open("nc1", 1);
  ASSERT_EQ(old.status, 200) << old.body;
  std::vector<std::string> writes;
  for (int i = 0; i < 4000; ++i) writes.push_back("write -q -P 1 2M 256k");
  std::stop_source stop;
  const auto old_guest = initiator(old);
  std::jthread guest([&] {
    (void)sys::run({.argv = old_guest.argv(writes), .timeout = std::chrono::seconds{120}}, stop.get_token());
  });
  const auto fresh = open("nc2", 2);
  ASSERT_EQ(fresh.status, 200) << fresh.body;
  EXPECT_NE(fresh.body["secret"], old.body["secret"]);
  auto wrote = initiator(fresh).io({"write -P 2 2M 256k", "read -P 2 2M 256k"});
  EXPECT_TRUE(wrote) << wrote.error().message;
  EXPECT_EQ(testing::slurp(file()).substr(2 << 20, 256 << 10), std::string(256 << 10, '\2'));
  stop.request_stop();
  guest.join();
  EXPECT_FALSE(old_guest.io({"read 0 64k"}));

  // What the old node still says changes nothing.
  EXPECT_EQ(open("nc1", 1).status, 409);
  EXPECT_EQ(open("nc1", 2).status, 409) << "the epoch is nc2's";
  EXPECT_EQ(close("nc1", 1).status, 200);
  EXPECT_EQ(ask("nc1", "DELETE", kServer, 1, "", nullptr).status, 409);
  EXPECT_TRUE(initiator(fresh).io({"read -P 2 2M 256k"}));
}

TEST_F(Disks, AMovingVmsNodesBothReachIt) {
  const auto say = [&](const char* node, std::int64_t epoch, const char* what) {
    return ask(node, "POST", kServer, epoch, what, nullptr);
  };
  EXPECT_EQ(say("nc2", 2, "/join").status, 409) << "nobody has it open";
  const auto opened = open("nc1", 1);
  ASSERT_EQ(opened.status, 200) << opened.body;
  EXPECT_EQ(say("nc2", 1, "/join").status, 409) << "the epoch is nc1's";
  const auto joined = say("nc2", 2, "/join");
  ASSERT_EQ(joined.status, 200) << joined.body;
  EXPECT_EQ(joined.body["secret"], opened.body["secret"]);
  EXPECT_EQ(joined.body["iqn"], opened.body["iqn"]);
  EXPECT_EQ(say("nc3", 2, "/join").status, 409);
  // It does not come: nothing has changed for nc1. As long as tgtd was not told so, it is not done.
  std::filesystem::rename(dir_ / "tgtd.0", dir_ / "away");
  const auto leave = path_of(kServer, 2);
  for (int tries = 0; tries < 20; ++tries) {
    EXPECT_NE(once("POST", leave + "/leave", grant_for("nc2", "PUT", leave + "/move"), nullptr).status, 200);
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  }
  std::filesystem::rename(dir_ / "away", dir_ / "tgtd.0");
  EXPECT_EQ(say("nc2", 2, "/leave").status, 200);
  EXPECT_EQ(say("nc2", 2, "/leave").status, 200);
  EXPECT_EQ(say("nc2", 2, "/keep").status, 409);
  EXPECT_EQ(open("nc1", 1).body, opened.body);
  EXPECT_TRUE(initiator(opened).io({"write -P 4 2M 64k"}));
  // The next time it does.
  ASSERT_EQ(say("nc2", 3, "/join").status, 200);
  host_.reset();
  start();
  EXPECT_EQ(say("nc2", 3, "/join").status, 200) << "a restart of cc has forgotten nothing";
  EXPECT_EQ(say("nc2", 3, "/keep").status, 200);
  EXPECT_EQ(say("nc2", 3, "/keep").status, 200);
  EXPECT_EQ(close("nc1", 1).status, 200) << "what the node before says changes nothing";
  EXPECT_EQ(open("nc1", 1).status, 409);
  auto read = initiator(joined).io({"read -P 4 2M 64k"});
  EXPECT_TRUE(read) << read.error().message;
  EXPECT_EQ(say("nc2", 3, "/leave").status, 200);
  EXPECT_TRUE(initiator(joined).io({"read -P 4 2M 64k"})) << "it is nc2's own by now";
  EXPECT_EQ(close("nc2", 3).status, 200);
}

TEST_F(Disks, AMovesGrantIsGoodForTheMoveAlone) {
  ASSERT_EQ(open("nc1", 1).status, 200);
  const auto path = path_of(kServer, 2);
  const auto move = grant_for("nc2", "PUT", path + "/move"), full = grant_for("nc2", "PUT", path);
  const auto source = open_body("nc2");
  EXPECT_EQ(once("POST", path + "/open", move, source).status, 403);
  EXPECT_EQ(once("POST", path + "/close", move, nullptr).status, 403);
  EXPECT_EQ(once("DELETE", path, move, nullptr).status, 403);
  for (const char* what : {"/join", "/keep", "/leave"})
    EXPECT_EQ(once("POST", path + what, full, nullptr).status, 403) << what;
  EXPECT_TRUE(std::filesystem::exists(file()));
  EXPECT_EQ(ask("nc2", "POST", kServer, 2, "/join", nullptr).status, 200);
  // Not where it joined from: whoever passed the grant on has used it himself.
  auto record = json::parse(testing::slurp(file().parent_path() / "disk.json"));
  record["joining_address"] = "10.0.0.66";
  std::ofstream(file().parent_path() / "disk.json") << record.dump();
  EXPECT_EQ(ask("nc2", "POST", kServer, 2, "/keep", nullptr).status, 409);
}

TEST_F(Disks, ASubmitMakesAVersionOfExactlyTheseBytes) {
  const auto opened = open("nc1", 1);
  ASSERT_EQ(opened.status, 200) << opened.body;
  ASSERT_TRUE(initiator(opened).io({"write -P 42 64k 192k", "write -P 0 0 64k"}));
  const auto cmdid = new_command_id().str();
  const auto early = submit("nc1", 1, 2, cmdid);
  EXPECT_EQ(early.status, 409) << early.body;
  ASSERT_EQ(close("nc1", 1).status, 200);
  EXPECT_EQ(submit("nc1", 0, 2, cmdid).status, 409);
  const auto done = submit("nc1", 1, 2, cmdid);
  ASSERT_EQ(done.status, 200) << done.body;
  auto receipt = transfer::verify_receipt(kDataKey, done.body["receipt"].get<std::string>());
  ASSERT_TRUE(receipt);
  EXPECT_EQ(receipt->version, 2);
  EXPECT_EQ(receipt->parent, transfer::make_parent(kDatabase, 1));
  EXPECT_EQ(receipt->cmdid, cmdid);
  EXPECT_EQ(submit("nc1", 1, 2, cmdid).body, done.body) << "the same again";

  // Another server made from that version has the same bytes.
  auto body = open_body("nc2");
  body["version"] = 2;
  body["digest"] = receipt->digest;
  body["disk_bytes"] = receipt->virtual_size_bytes;
  body["source_grant"] = grant_for("nc2", "GET", transfer::version_path(kDatabase, 2));
  const auto copy = ask("nc2", "POST", "VS00000002", 1, "/open", body);
  ASSERT_EQ(copy.status, 200) << copy.body;
  EXPECT_TRUE(testing::slurp(file("VS00000002")) == testing::slurp(file()));
}

TEST_F(Disks, ABuildsDiskLiesWithItsImageAndGoesWithIt) {
  auto body = open_body("nc1");
  body["build_imgid"] = "IMG000000bb";
  ASSERT_EQ(ask("nc1", "POST", "TMP00000001", 1, "/open", body).status, 200);
  EXPECT_TRUE(std::filesystem::exists(dir_.path() / "space/database/tmp/images/IMG000000bb/database"));
  EXPECT_EQ(ask("nc1", "POST", kServer, 1, "/open", body).status, 400) << "a server builds nothing";
  ASSERT_EQ(open("nc1", 1).status, 200);
  // Whoever may open a disk of their own does not get it by naming its image.
  const auto drive = dir_.path() / "space/database/tmp/images/IMG000000bb/database";
  body["source_grant"] = grant_for("nc2", "GET", transfer::version_path(kDatabase, 1));
  for (const auto* mode : {"iscsi", "copy"}) {
    body["mode"] = mode;
    const auto other = ask("nc2", "POST", "TMP00000002", 1, "/open", body);
    EXPECT_EQ(other.status, 409) << other.body;
  }
  EXPECT_EQ(ask("nc2", "DELETE", "TMP00000002", 1, "", nullptr).status, 200);
  EXPECT_TRUE(testing::slurp(drive) == sample_bytes());
  body.erase("mode");
  body["build_imgid"] = "IMG000000cc";
  ASSERT_EQ(ask("nc2", "POST", "TMP00000002", 1, "/open", body).status, 200);
  for (const auto* insid : {"TMP00000001", "TMP00000002", "VS00000001"}) {
    EXPECT_EQ(ask("nc1", "DELETE", insid, 1, "", nullptr).status, 200);
    EXPECT_EQ(ask("nc1", "DELETE", insid, 1, "", nullptr).status, 200) << "again";
  }
  EXPECT_FALSE(std::filesystem::exists(dir_.path() / "space/database/tmp/images/IMG000000bb"));
  EXPECT_FALSE(std::filesystem::exists(file().parent_path()));
  body["build_imgid"] = "IMG000000bb";
  EXPECT_EQ(ask("nc2", "POST", "TMP00000003", 1, "/open", body).status, 200) << "the next build of it";
}

TEST_F(Disks, ADiskThatIsThereIsNeverMadeAgain) {
  ASSERT_EQ(open("nc1", 1).status, 200);
  ASSERT_EQ(close("nc1", 1).status, 200);
  std::ofstream(file(), std::ios::binary | std::ios::in).write("unique", 6);
  // What a kill -9 in the middle left of another attempt changes nothing either.
  std::ofstream(file().string() + ".part") << "half";
  const auto opened = open("nc2", 9);
  ASSERT_EQ(opened.status, 200) << opened.body;
  EXPECT_EQ(testing::slurp(file()).substr(0, 6), "unique");
}

TEST_F(Disks, ModesMayChangeFromStartToStart) {
  auto body = open_body("nc1");
  body["mode"] = "nbd";
  const auto secure = ask("nc1", "POST", kServer, 1, "/open", body);
  ASSERT_EQ(secure.status, 200) << secure.body;
  EXPECT_EQ(secure.body["mode"], "nbd");
  EXPECT_EQ(secure.body["export"], kServer);
  EXPECT_EQ(secure.body["user"], "educloud");
  EXPECT_EQ(secure.body["secret"].get<std::string>().size(), 64u);
  EXPECT_EQ(ask("nc1", "POST", kServer, 1, "/open", body).body, secure.body) << "the same again";
  host_.reset();
  start();
  EXPECT_EQ(ask("nc1", "POST", kServer, 1, "/open", body).body, secure.body) << "port and key are kept";
  EXPECT_EQ(submit("nc1", 1, 2, new_command_id().str()).status, 409) << "it is open";
  const auto plain = open("nc1", 1);
  ASSERT_EQ(plain.status, 200) << plain.body;
  EXPECT_EQ(plain.body["mode"], "iscsi");
  EXPECT_TRUE(initiator(plain).io({"write -P 5 0 64k"}));
  ASSERT_EQ(ask("nc1", "POST", kServer, 2, "/open", body).status, 200);
  EXPECT_FALSE(initiator(plain).io({"read 0 64k"})) << "one way at a time";
  ASSERT_EQ(close("nc1", 2).status, 200);
  EXPECT_EQ(submit("nc1", 2, 2, new_command_id().str()).status, 200);
}

TEST_F(Disks, WithoutTheRightGrantsNothingIsDone) {
  const auto path = path_of(kServer, 1) + "/open";
  const auto good = grant_for("nc1", "PUT", path_of(kServer, 1));
  EXPECT_EQ(once("POST", path, "x=1", open_body("nc1")).status, 403);
  EXPECT_EQ(once("POST", path, grant_for("nc1", "GET", path_of(kServer, 1)), open_body("nc1")).status, 403);
  EXPECT_EQ(once("POST", path, grant_for("nc1", "PUT", path_of("VS00000002", 1)), open_body("nc1")).status,
            403);
  EXPECT_EQ(once("POST", path, good, open_body("nc2")).status, 403) << "the source is another node's";
  auto other = open_body("nc1");
  other["imgid"] = "IMG000000aa";
  EXPECT_EQ(once("POST", path, good, other).status, 403);
  auto unheard_of = open_body("nc1");
  unheard_of["mode"] = "ftp";
  EXPECT_EQ(once("POST", path, good, unheard_of).status, 400);
  for (const auto* epoch : {"2", "0", "01", "+1", "-1", "x", "99999999999999999999"}) {
    const auto other_epoch = "/disks/" + kServer + "/" + epoch + "/open";
    EXPECT_GE(once("POST", other_epoch, good, open_body("nc1")).status, 400) << "a node raises no epoch";
  }
  EXPECT_EQ(once("POST", "/disks/..%2fx/1/open", good, open_body("nc1")).status, 400);
  auto lie = open_body("nc1");
  lie["digest"] = std::string(64, '1');
  const auto refused = ask("nc1", "POST", kServer, 1, "/open", lie);
  EXPECT_GE(refused.status, 400) << refused.body;
  EXPECT_NE(refused.status, 503);
  EXPECT_FALSE(std::filesystem::exists(file()));
}

}  // namespace
}  // namespace educloud::test
