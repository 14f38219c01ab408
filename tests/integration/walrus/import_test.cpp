#include <future>

#include "integration/walrus/fixture.hpp"

namespace educloud::walrus {
namespace {

TEST_F(WalrusTest, EveryFormatBecomesAStandaloneQcow2) {
  int version = 0;
  for (const std::string format : {"raw", "vdi", "vmdk", "vhdx", "qcow2"}) {
    SCOPED_TRACE(format);
    ++version;
    const auto command = expect_import(version);
    const auto file = make_image("image." + format, format);
    auto receipt_text = upload(file, version, format);
    ASSERT_TRUE(receipt_text.has_value()) << receipt_text.error().message;
    const auto status = final_status(command.cmdid);
    EXPECT_EQ(status.event, "submitted");
    EXPECT_EQ(status.failed, 0) << status.errormsg;
    EXPECT_EQ(status.receipt, *receipt_text);
    auto receipt = transfer::verify_receipt(kKey, status.receipt);
    ASSERT_TRUE(receipt.has_value());
    EXPECT_EQ(receipt->imgid, kImage);
    EXPECT_EQ(receipt->version, version);
    EXPECT_EQ(receipt->cmdid, command.cmdid);
    EXPECT_EQ(receipt->format, "qcow2");
    EXPECT_EQ(receipt->virtual_size_bytes, 20 << 20);
    EXPECT_EQ(receipt->digest, *image::sha256_file(machine(version)));
    run({"qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw().string(), machine(version).string()});
    const auto current = config_.common.prefix / "images" / kImage / "machine";
    EXPECT_EQ(std::filesystem::canonical(current), std::filesystem::canonical(machine(version)));
    expect_no_leftovers();
    EXPECT_EQ(order(make_command("task/delete")).event, "deleted");
  }
}

TEST_F(WalrusTest, FormatIsFoundByItsHeader) {
  expect_import();
  auto receipt = upload(make_image("image", "vmdk"), 1, "");
  ASSERT_TRUE(receipt.has_value()) << receipt.error().message;
  run({"qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw().string(), machine(1).string()});
}

TEST_F(WalrusTest, StatusesTellHowFarItIs) {
  const auto command = expect_import();
  EXPECT_EQ(told(command.cmdid).front().event, "uploading");
  EXPECT_EQ(told(command.cmdid).front().prompt, "waiting for the upload");
  ASSERT_TRUE(upload(make_image("image.vmdk", "vmdk"), 1, "vmdk").has_value());
  const auto last = final_status(command.cmdid);
  std::int64_t seq = 0;
  for (const auto& status : told(command.cmdid)) {
    EXPECT_GT(status.seq, seq);
    seq = status.seq;
    EXPECT_EQ(status.phase, "submitting");
    EXPECT_EQ(status.tid, kTid);
  }
  EXPECT_EQ(last.state, "done");
  EXPECT_EQ(last.done, 1);
}

TEST_F(WalrusTest, BackingFileIsRefusedAndNamed) {
  const auto command = expect_import();
  const auto secret = dir_.write("secret", std::string(1 << 20, 's'));
  const auto file = dir_ / "evil.qcow2";
  run({"qemu-img", "create", "-q", "-f", "qcow2", "-b", secret.string(), "-F", "raw", file.string()});
  auto refused = upload(file, 1, "qcow2");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
  EXPECT_NE(refused.error().message.find(secret.string()), std::string::npos) << refused.error().message;
  const auto status = final_status(command.cmdid);
  EXPECT_EQ(status.event, "failed");
  EXPECT_EQ(status.failed, 1);
  EXPECT_NE(status.errormsg.find(secret.string()), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(machine(1)));
  expect_no_leftovers();
  // The next order of the same import gets through.
  const auto again = expect_import();
  EXPECT_TRUE(upload(make_image("good.qcow2", "qcow2"), 1, "qcow2").has_value());
  EXPECT_EQ(final_status(again.cmdid).event, "submitted");
}

TEST_F(WalrusTest, RubbishThatClaimsToBeAnImageIsRefused) {
  expect_import();
  const auto file = dir_.write("rubbish", std::string(2 << 20, 'r'));
  for (const char* format : {"qcow2", "vmdk", "vdi", "vhdx"}) {
    auto refused = upload(file, 1, format);
    ASSERT_FALSE(refused.has_value()) << format;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument) << refused.error().message;
    EXPECT_EQ(order(make_command("task/delete")).event, "deleted");
    expect_import();
  }
  expect_no_leftovers();
}

TEST_F(WalrusTest, UploadThatOvertakesItsImportIsAskedToComeAgain) {
  auto request = make_upload(url_, make_image("image.qcow2", "qcow2"), 1, "user", "qcow2");
  http::ClientRequest early;
  early.method = "POST";
  early.target = "/uploads?image=" + request.imgid + "&version=1&" + request.grant;
  early.headers["Tus-Resumable"] = "1.0.0";
  early.headers["Upload-Length"] = "1000";
  auto refused = http::Client(*http::Url::parse(url_)).send(early);
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->status, 503);
  EXPECT_EQ(refused->header("Retry-After"), "1");
  auto receipt = std::async(std::launch::async, [&] { return transfer::upload_version(request); });
  const auto command = expect_import();
  EXPECT_TRUE(receipt.get().has_value());
  EXPECT_EQ(final_status(command.cmdid).event, "submitted");
}

TEST_F(WalrusTest, UploadForAnImportThatEndedIsRefused) {
  expect_import();
  const auto file = dir_.write("rubbish", std::string(2 << 20, 'r'));
  EXPECT_FALSE(upload(file, 1, "vdi").has_value());
  stop();
  start();
  auto refused = upload(make_image("image.qcow2", "qcow2"), 1, "qcow2");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
}

TEST_F(WalrusTest, CancelledImportForgetsItsUpload) {
  const auto command = expect_import();
  auto request = make_upload(url_, raw(), 1, "user", "raw");
  request.piece_bytes = 1 << 20;
  std::stop_source stop;
  auto cut = transfer::upload_version(
      request, [&](const transfer::Progress&) { stop.request_stop(); }, stop.get_token());
  ASSERT_FALSE(cut.has_value());
  EXPECT_EQ(cut.error().code, ErrorCode::cancelled);
  EXPECT_EQ(order(make_command("task/delete")).event, "deleted");
  EXPECT_TRUE(std::filesystem::is_empty(config_.common.prefix / "tmp" / "uploads"));
  EXPECT_EQ(upload(raw(), 1, "raw").error().code, ErrorCode::conflict);
}

TEST_F(WalrusTest, HostSubmitsAndTakenNumberIsRefused) {
  const auto file = make_image("image.qcow2", "qcow2");
  auto text = submit(file, 3);
  ASSERT_TRUE(text.has_value()) << text.error().message;
  EXPECT_EQ(transfer::verify_receipt(kKey, *text)->digest, *image::sha256_file(file));
  EXPECT_TRUE(submit(file, 3).has_value()) << "the same bytes again are no conflict";
  const auto other =
      make_image("other.qcow2", "qcow2", dir_.write("other", std::string(1 << 20, 'o')).string());
  auto refused = submit(other, 3);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  EXPECT_NE(refused.error().message.find("version 3"), std::string::npos);
}

TEST_F(WalrusTest, WrongDigestIsThrownAway) {
  const auto file = make_image("image.qcow2", "qcow2");
  auto request = make_upload(url_, file, 1, "cc1", "qcow2");
  request.cmdid = new_command_id().str();
  request.digest = std::string(64, '0');
  auto refused = transfer::upload_version(request);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::corrupt);
  EXPECT_FALSE(std::filesystem::exists(machine(1)));
  expect_no_leftovers();
}

TEST_F(WalrusTest, UpkeepOfVersions) {
  const auto file = make_image("image.qcow2", "qcow2");
  for (int version : {1, 2, 3}) ASSERT_TRUE(submit(file, version).has_value());
  EXPECT_EQ(order(make_command("image/use", 1)).event, "submitted");
  const auto link = config_.common.prefix / "images" / kImage / "machine";
  EXPECT_EQ(std::filesystem::canonical(link), std::filesystem::canonical(machine(1)));
  const auto unknown = order(make_command("image/use", 9));
  EXPECT_EQ(unknown.event, "failed");
  EXPECT_NE(unknown.errormsg.find("9"), std::string::npos);
  auto prune = make_command("image/prune");
  prune.versions = {2, 1};
  const auto refused = order(prune);
  EXPECT_EQ(refused.event, "failed");
  EXPECT_NE(refused.errormsg.find("version 1"), std::string::npos);
  EXPECT_TRUE(std::filesystem::exists(machine(2))) << "all or none";
  prune = make_command("image/prune");
  prune.versions = {2, 3};
  EXPECT_EQ(order(prune).event, "submitted");
  EXPECT_FALSE(std::filesystem::exists(machine(2)));
  EXPECT_TRUE(std::filesystem::exists(machine(1)));
  EXPECT_EQ(order(make_command("image/delete")).event, "submitted");
  EXPECT_FALSE(std::filesystem::exists(link.parent_path()));
}

TEST_F(WalrusTest, DuplicateRepeatsThePresentStatus) {
  const auto command = expect_import();
  const auto before = told(command.cmdid).size();
  send(command);
  EXPECT_TRUE(eventually([&] { return told(command.cmdid).size() > before; }));
  EXPECT_EQ(told(command.cmdid).back().seq, told(command.cmdid).front().seq);
}

TEST_F(WalrusTest, PoisonGoesToTheDeadLetters) {
  for (const char* body : {"", "{", "[]", R"({"type":"cmd"})",
                           R"({"type":"cmd","op":"image/use","tid":"x:y:z",)"
                           R"("cmdid":"01890a5d-ac96-774b-bcce-b302099a8057",)"
                           R"("epoch":1,"attempt":1,"deadline":1})"}) {
    bus::Outgoing out;
    out.exchange = "walrus_cmd";
    out.routing_key = "walrus";
    out.body = body;
    ASSERT_TRUE(clc_->publish(std::move(out), [](bus::Outcome) {}).has_value());
  }
  broker_.deliver_all();
  EXPECT_TRUE(eventually([&] { return broker_.dead_letters() == 5; })) << broker_.dead_letters();
  expect_import();  // the neighbours are unaffected
}

TEST_F(WalrusTest, ServesVersionsToHolderOfAGrantOnly) {
  ASSERT_TRUE(submit(make_image("image.qcow2", "qcow2"), 1).has_value());
  http::Client client(*http::Url::parse(url_));
  const std::string path = transfer::raw_path(kImage, 1);
  EXPECT_EQ(client.send({"GET", path})->status, 403);
  EXPECT_EQ(client.send({"GET", path + "?" + grant("PUT", path, "cc1")})->status, 403);
  EXPECT_EQ(client
                .send({"GET", transfer::raw_path(kImage, 2) + "?" +
                                  grant("GET", transfer::raw_path(kImage, 2), "cc1")})
                ->status,
            404);
  const auto query = "?" + grant("GET", path, "cc1");
  auto head = client.send({"HEAD", path + query});
  ASSERT_EQ(head->status, 200);
  EXPECT_EQ(head->header("ETag"), "\"" + *image::sha256_file(machine(1)) + "\"");
  auto part = client.send({"GET", path + query, {{"Range", "bytes=0-3"}}});
  EXPECT_EQ(part->status, 206);
  EXPECT_EQ(part->body, "QFI\xfb");
  auto health = client.send({"GET", "/health"})->json();
  ASSERT_TRUE(health.has_value());
  EXPECT_EQ((*health)["status"], "ok");
}

TEST_F(WalrusTest, GoesOnAfterARestart) {
  const auto command = expect_import();
  auto request = make_upload(url_, raw(), 1, "user", "raw");
  request.piece_bytes = 1 << 20;
  std::stop_source cut;
  (void)transfer::upload_version(
      request, [&](const transfer::Progress&) { cut.request_stop(); }, cut.get_token());
  stop();
  start();
  auto receipt = upload(raw(), 1, "raw");
  ASSERT_TRUE(receipt.has_value()) << receipt.error().message;
  EXPECT_EQ(final_status(command.cmdid).receipt, *receipt);
  // A later order of the same import gets a receipt of its own for what is there.
  stop();
  start();
  const auto again = make_command("image/import");
  const auto status = order(again);
  EXPECT_EQ(status.event, "submitted");
  EXPECT_EQ(transfer::verify_receipt(kKey, status.receipt)->cmdid, again.cmdid);
}

TEST_F(WalrusTest, FullDiskIsSaidAtOnce) {
  stop();
  config_.reserve_bytes = 1ll << 40;
  start();
  expect_import();
  auto refused = upload(raw(), 1, "raw");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::exhausted);
  EXPECT_NE(refused.error().message.find("free"), std::string::npos) << refused.error().message;
  EXPECT_TRUE(std::filesystem::is_empty(config_.common.prefix / "tmp" / "uploads"));
}

}  // namespace
}  // namespace educloud::walrus
