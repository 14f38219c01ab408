#include <future>

#include "integration/walrus/fixture.hpp"

namespace educloud::walrus {
namespace {

TEST_F(WalrusTest, EveryFormatBecomesTheSameChunks) {
  int version = 0;
  std::string digest;
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
    EXPECT_EQ(receipt->format, "raw");
    EXPECT_EQ(receipt->virtual_size_bytes, 20 << 20);
    EXPECT_EQ(receipt->size_bytes, 6 << 20);
    if (digest.empty()) digest = CutDisk(educloud::testing::slurp(raw())).map.manifest().digest().hex();
    EXPECT_EQ(receipt->digest, digest) << "the disk counts, not what it came in";
    run({"qemu-img", "compare", "-f", "raw", "-F", "raw", raw().string(), exported(version).string()});
    EXPECT_EQ(current(), version);
    expect_no_leftovers();
    EXPECT_EQ(order(make_command("task/delete")).event, "deleted");
  }
  auto figures = store_figures(config_.common.prefix);
  ASSERT_TRUE(figures.has_value()) << figures.error().message;
  EXPECT_EQ(figures->versions.size(), 5u);
  EXPECT_EQ(figures->data_bytes, 5u * (6 << 20));
  EXPECT_LT(figures->unique_bytes, (6u << 20) + (64u << 10)) << "five versions cost one";
  expect_sound();
}

TEST_F(WalrusTest, FormatIsFoundByItsHeader) {
  expect_import();
  auto receipt = upload(make_image("image", "vmdk"), 1, "");
  ASSERT_TRUE(receipt.has_value()) << receipt.error().message;
  EXPECT_EQ(content(1), educloud::testing::slurp(raw()));
}

TEST_F(WalrusTest, ExportAsQcow2) {
  expect_import();
  ASSERT_TRUE(upload(raw(), 1, "raw").has_value());
  const auto file = dir_ / "out.qcow2";
  auto done = export_version({config_.common.prefix, kImage, 0, file, image::Format::qcow2});
  ASSERT_TRUE(done.has_value()) << done.error().message;
  EXPECT_EQ(done->version, 1);
  run({"qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw().string(), file.string()});
  EXPECT_EQ(export_version({config_.common.prefix, kImage, 1, file}).error().code, ErrorCode::conflict);
  EXPECT_EQ(export_version({config_.common.prefix, kImage, 7, dir_ / "x"}).error().code,
            ErrorCode::not_found);
}

TEST_F(WalrusTest, LargeDiskWithLittleDataTakesSecondsAndLittleMemory) {
  const auto plain = dir_.write("plain", noise(64 << 20, 9));
  std::filesystem::resize_file(plain, 10ull << 30);
  const auto file = make_image("large.qcow2", "qcow2", plain.string());
  expect_import();
  reset_peak();
  const auto begun = std::chrono::steady_clock::now();
  auto receipt = upload(file, 1, "qcow2");
  ASSERT_TRUE(receipt.has_value()) << receipt.error().message;
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(30));
  EXPECT_LT(peak_mib(), 200 * kMemoryFactor);
  EXPECT_EQ(transfer::verify_receipt(kKey, *receipt)->virtual_size_bytes, 10ll << 30);
  run({"qemu-img", "compare", "-f", "raw", "-F", "raw", plain.string(), exported(1).string()});
}

TEST_F(WalrusTest, OddAndTinyDisksAreMadeWholeSectors) {
  int version = 0;
  for (const std::size_t size :
       {std::size_t{1}, std::size_t{511}, std::size_t{65537}, (std::size_t{4} << 20) + 3}) {
    SCOPED_TRACE(size);
    const auto command = expect_import(++version);
    const auto disk = noise(size + 8, 1).substr(0, size - 1) + "x";
    auto receipt = upload(dir_.write("odd", disk), version, "raw");
    ASSERT_TRUE(receipt.has_value()) << receipt.error().message;
    const auto back = content(version);
    EXPECT_EQ(back.size(), (size + 511) / 512 * 512);
    EXPECT_EQ(back.substr(0, size), disk);
    EXPECT_EQ(back.find_first_not_of('\0', size), std::string::npos);
    final_status(command.cmdid);
  }
  expect_sound();
}

TEST_F(WalrusTest, NothingButZerosIsADiskToo) {
  expect_import();
  const auto file = dir_.write("zeros", std::string(3 << 20, '\0'));
  auto receipt = upload(file, 1, "raw");
  ASSERT_TRUE(receipt.has_value()) << receipt.error().message;
  EXPECT_EQ(transfer::verify_receipt(kKey, *receipt)->size_bytes, 0);
  EXPECT_EQ(content(1), std::string(3 << 20, '\0'));
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
  EXPECT_FALSE(is_published(1));
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

TEST_F(WalrusTest, WrongDigestIsThrownAway) {
  expect_import();
  auto request = make_upload(url_, make_image("image.qcow2", "qcow2"), 1, "user", "qcow2");
  request.digest = std::string(64, '0');
  auto refused = transfer::upload_version(request);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::corrupt);
  EXPECT_FALSE(is_published(1));
  expect_no_leftovers();
}

TEST_F(WalrusTest, UpkeepOfVersions) {
  for (int version : {1, 2, 3}) ASSERT_TRUE(submit(noise(1 << 20, 1), version).receipt.has_value());
  EXPECT_EQ(order(make_command("image/use", 1)).event, "submitted");
  EXPECT_EQ(current(), 1);
  const auto unknown = order(make_command("image/use", 9));
  EXPECT_EQ(unknown.event, "failed");
  EXPECT_NE(unknown.errormsg.find("9"), std::string::npos);
  auto prune = make_command("image/prune");
  prune.versions = {2, 1};
  const auto refused = order(prune);
  EXPECT_EQ(refused.event, "failed");
  EXPECT_NE(refused.errormsg.find("version 1"), std::string::npos);
  EXPECT_TRUE(is_published(2)) << "all or none";
  prune = make_command("image/prune");
  prune.versions = {2, 3};
  EXPECT_EQ(order(prune).event, "submitted");
  EXPECT_FALSE(is_published(2));
  EXPECT_TRUE(is_published(1));
  EXPECT_EQ(order(make_command("image/delete")).event, "submitted");
  EXPECT_FALSE(std::filesystem::exists(config_.common.prefix / "images" / kImage));
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
  const auto disk = noise(5 << 20, 3);
  ASSERT_TRUE(submit(disk, 1).receipt.has_value());
  const auto digest = CutDisk(disk).map.manifest().digest();
  http::Client client(*http::Url::parse(url_));
  const auto path = transfer::version_path(kImage, 1);
  EXPECT_EQ(client.send({"GET", path + "/raw"})->status, 403);
  EXPECT_EQ(client.send({"GET", path + "/raw?" + grant("PUT", path, "cc1")})->status, 403);
  const auto other = transfer::version_path(kImage, 2);
  EXPECT_EQ(client.send({"GET", other + "/manifest?" + grant("GET", other, "cc1")})->status, 404);
  const auto query = "?" + grant("GET", path, "cc1");
  auto head = client.send({"HEAD", path + "/raw" + query});
  ASSERT_EQ(head->status, 200);
  EXPECT_EQ(head->header("ETag"), "\"" + digest.hex() + "\"");
  auto part = client.send({"GET", path + "/raw" + query, {{"Range", "bytes=70000-70009"}}});
  EXPECT_EQ(part->status, 206);
  EXPECT_EQ(part->body, disk.substr(70000, 10));
  auto reader = chunk_client(url_, 1, "GET");
  auto manifest = reader.manifest(digest, {});
  ASSERT_TRUE(manifest.has_value()) << manifest.error().message;
  EXPECT_EQ(manifest->data_bytes, disk.size());
  auto health = client.send({"GET", "/health"})->json();
  ASSERT_TRUE(health.has_value());
  EXPECT_EQ((*health)["status"], "ok");
}

TEST_F(WalrusTest, FilesOfHostsAreRefused) {
  auto request = make_upload(url_, raw(), 1, "cc1", "raw");
  request.cmdid = new_command_id().str();
  request.digest = *image::sha256_file(raw());
  auto refused = transfer::upload_version(request);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::permission_denied);
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
