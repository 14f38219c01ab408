#include "unit/transfer/upload_fixture.hpp"

namespace educloud::transfer {
namespace {

TEST_F(UploadTest, TellsWhatItCanDo) {
  for (const char* path : {"/uploads", "/uploads/0123456789abcdef0123456789abcdef"}) {
    auto response = call("OPTIONS", path);
    EXPECT_EQ(response.status, 204);
    EXPECT_EQ(response.headers["Tus-Version"], "1.0.0");
    EXPECT_EQ(response.headers["Tus-Extension"], "creation,termination");
    EXPECT_EQ(response.headers["Tus-Max-Size"], std::to_string(options_.max_bytes));
  }
}

TEST_F(UploadTest, OtherTusVersionIsRefused) {
  const auto location = created(3);
  for (const char* method : {"HEAD", "DELETE", "PATCH"}) {
    auto response = call(method, location, {{"Tus-Resumable", "0.2.2"}});
    EXPECT_EQ(response.status, 412) << method;
    EXPECT_EQ(response.headers["Tus-Version"], "1.0.0");
  }
  EXPECT_EQ(call("POST", "/uploads", {{"Tus-Resumable", ""}}).status, 412);
}

TEST_F(UploadTest, PiecesMakeAFileThatIsProcessed) {
  const auto location = created(6);
  EXPECT_EQ(offset(location), "0");
  EXPECT_EQ(call("HEAD", location).headers["Cache-Control"], "no-store");
  auto response = patch(location, 0, "abc");
  EXPECT_EQ(response.status, 204);
  EXPECT_EQ(response.headers["Upload-Offset"], "3");
  EXPECT_EQ(response.headers["Tus-Resumable"], "1.0.0");
  EXPECT_EQ(patch(location, 3, "def").status, 204);
  ASSERT_TRUE(reaches(location, "done")) << state(location);
  EXPECT_EQ(state(location)["receipt"], "receipt of abcdef");
  EXPECT_EQ(offset(location), "6");
  const auto uid = location.substr(location.rfind('/') + 1);
  EXPECT_FALSE(std::filesystem::exists(options_.folder / uid / "data"));
  EXPECT_TRUE(std::filesystem::exists(options_.folder / uid / "info.json"));
}

TEST_F(UploadTest, WithoutAGoodGrantNothingBegins) {
  auto one = request("POST", "/uploads", {{"Upload-Length", "3"}});
  one.query = {{"image", kImage}, {"version", "1"}};
  EXPECT_EQ(call(one).status, 403);
  for (const auto& query :
       {upload_grant(2), sign_grant(kTestKey, {"GET", version_path(kImage, 1), "cc1", 9'000'000'000}),
        sign_grant(kTestKey, {"PUT", version_path(kImage, 1), "cc1", 1000})}) {
    one.query = parse_query(query);
    one.query["image"] = kImage;
    one.query["version"] = "1";
    EXPECT_EQ(call(one).status, 403);
  }
  EXPECT_EQ(folders(), 0u);
}

TEST_F(UploadTest, BadCreationsAreRefusedWithTheKeyNamed) {
  const auto try_one = [&](const char* key, const std::string& image, const std::string& version,
                           Headers headers) {
    auto one = request("POST", "/uploads", std::move(headers));
    one.query = parse_query(upload_grant(1));
    one.query["image"] = image;
    one.query["version"] = version;
    auto response = call(one);
    EXPECT_EQ(response.status, 400) << body(response);
    EXPECT_NE(body(response).find(key), std::string::npos) << body(response);
  };
  try_one("image id", "../etc", "1", {{"Upload-Length", "3"}});
  for (const char* version : {"0", "-1", "01", "1x", "", "99999999999"}) {
    try_one("version", kImage, version, {{"Upload-Length", "3"}});
  }
  for (const char* length : {"", "0", "-3", "3 ", "abc", "99999999999999999999999"}) {
    try_one("Upload-Length", kImage, "1", {{"Upload-Length", length}});
  }
  const auto metadata = [](const char* key, const char* value) { return format_metadata({{key, value}}); };
  for (const auto& [key, value] :
       std::map<std::string, std::string>{{"Upload-Metadata", "digest !!!"},
                                          {"command id", metadata("cmdid", "x")},
                                          {"digest", metadata("digest", "ABC")},
                                          {"format", metadata("format", "iso")},
                                          {"parent", metadata("parent", "../x/1")}}) {
    try_one(key.c_str(), kImage, "1", {{"Upload-Length", "3"}, {"Upload-Metadata", value}});
  }
  EXPECT_EQ(folders(), 0u);
}

TEST_F(UploadTest, TooLargeIsSaidBeforeAnythingIsWritten) {
  EXPECT_EQ(create(options_.max_bytes + 1).status, 413);
  options_.reserve_bytes = 1ull << 60;
  start();
  auto response = create(3);
  EXPECT_EQ(response.status, 507);
  EXPECT_NE(body(response).find("free"), std::string::npos) << body(response);
  EXPECT_EQ(folders(), 0u);
}

TEST_F(UploadTest, NumberOfOpenUploadsIsBounded) {
  options_.max_open = 2;
  start();
  created(3, 1);
  const auto second = created(3, 2);
  EXPECT_EQ(create(3, {}, 3).status, 503);
  EXPECT_EQ(call("DELETE", second).status, 204);
  EXPECT_EQ(create(3, {}, 3).status, 201);
}

TEST_F(UploadTest, CreatingAgainFindsTheSame) {
  const auto location = created(6);
  patch(location, 0, "abc");
  EXPECT_EQ(created(6), location);
  EXPECT_EQ(offset(location), "3");
}

TEST_F(UploadTest, AnotherFileBeginsAnew) {
  const auto location = created(6);
  patch(location, 0, "abc");
  EXPECT_EQ(created(4), location);
  EXPECT_EQ(offset(location), "0");
  patch(location, 0, "wxyz");
  ASSERT_TRUE(reaches(location, "done"));
  EXPECT_EQ(create(5).status, 409);  // but not over one that is finished
  EXPECT_EQ(create(4).status, 201);
}

TEST_F(UploadTest, WrongPatchesChangeNothing) {
  const auto location = created(6);
  EXPECT_EQ(patch(location, 1, "abc").status, 409);
  EXPECT_EQ(patch(location, 0, "more than six").status, 413);
  EXPECT_EQ(patch("/uploads/0123456789abcdef0123456789abcdef", 0, "abc").status, 404);
  EXPECT_EQ(patch("/uploads/..", 0, "abc").status, 404);
  EXPECT_EQ(call("PATCH", location, {{"Upload-Offset", "0"}}).status, 415);
  EXPECT_EQ(call("PATCH", location, {{"Content-Type", "application/offset+octet-stream"}}).status, 400);
  EXPECT_EQ(offset(location), "0");
  // Chunked, so that no length is announced: the bytes past the end are refused as they come.
  auto sink = open_patch(location, 0, 0);
  EXPECT_TRUE(sink->write(std::string_view("abc")).has_value());
  EXPECT_FALSE(sink->write(std::string_view("too much")).has_value());
  sink.reset();
  EXPECT_EQ(offset(location), "3");
}

TEST_F(UploadTest, CutPatchKeepsWhatCame) {
  const auto location = created(6);
  auto sink = open_patch(location, 0, 6);
  ASSERT_TRUE(sink->write(std::string_view("abcd")).has_value());
  sink.reset();
  EXPECT_EQ(offset(location), "4");
  start();  // and so does a restart
  EXPECT_EQ(offset(location), "4");
  EXPECT_EQ(patch(location, 4, "ef").status, 204);
  EXPECT_TRUE(reaches(location, "done"));
}

TEST_F(UploadTest, OneWriterAtATime) {
  const auto location = created(6);
  auto first = open_patch(location, 0, 6);
  ASSERT_TRUE(first->write(std::string_view("ab")).has_value());
  EXPECT_EQ(patch(location, 2, "cdef").status, 423);
  EXPECT_EQ(offset(location), "2");
  ASSERT_TRUE(first->write(std::string_view("cdef")).has_value());
  EXPECT_EQ(first->finish().status, 204);
  EXPECT_TRUE(reaches(location, "done"));
}

TEST_F(UploadTest, RefusedFileIsToldAndMayBeSentAgain) {
  options_.processor = [](const ProcessInput& input, std::stop_token) -> Result<std::string> {
    if (educloud::testing::slurp(input.data) == "good") return "fine";
    return fail(ErrorCode::invalid_argument, "backing file /etc/shadow", "file");
  };
  start();
  const auto location = created(3);
  patch(location, 0, "bad");
  ASSERT_TRUE(reaches(location, "failed"));
  EXPECT_EQ(state(location)["error"]["code"], "invalid_argument");
  EXPECT_EQ(state(location)["error"]["message"], "backing file /etc/shadow");
  EXPECT_EQ(created(4), location);
  patch(location, 0, "good");
  EXPECT_TRUE(reaches(location, "done"));
}

TEST_F(UploadTest, TerminationRemovesEverything) {
  const auto location = created(6);
  auto sink = open_patch(location, 0, 6);
  ASSERT_TRUE(sink->write(std::string_view("abc")).has_value());
  EXPECT_EQ(call("DELETE", location).status, 204);
  EXPECT_FALSE(sink->write(std::string_view("def")).has_value());
  sink.reset();
  EXPECT_EQ(call("HEAD", location).status, 404);
  EXPECT_EQ(call("DELETE", location).status, 404);
  EXPECT_EQ(folders(), 0u);
}

TEST_F(UploadTest, MethodMayBeOverridden) {
  const auto location = created(6);
  EXPECT_EQ(call("POST", location, {{"X-HTTP-Method-Override", "HEAD"}}).headers["Upload-Offset"], "0");
  EXPECT_EQ(call("POST", location).status, 405);
  EXPECT_EQ(call("POST", location, {{"X-HTTP-Method-Override", "DELETE"}}).status, 204);
  EXPECT_EQ(call("HEAD", location).status, 404);
}

TEST_F(UploadTest, ProcessingGoesOnAfterARestart) {
  auto gate = std::make_shared<Gate>();
  options_.processor = [gate](const ProcessInput& input, std::stop_token stop) -> Result<std::string> {
    if (input.note == "halfway") return "resumed " + educloud::testing::slurp(input.data);
    if (auto ok = input.save_note("halfway"); !ok) return fail(ok.error());
    gate->pass(stop);
    return fail(ErrorCode::cancelled, "stopped");
  };
  start();
  const auto location = created(3);
  patch(location, 0, "abc");
  ASSERT_TRUE(eventually([&] { return gate->somebody_waits(); }));
  EXPECT_EQ(state(location)["state"], "processing");
  start();
  ASSERT_TRUE(reaches(location, "done"));
  EXPECT_EQ(state(location)["receipt"], "resumed abc");
}

TEST_F(UploadTest, RemovalStopsTheProcessor) {
  auto gate = std::make_shared<Gate>();
  options_.processor = [gate](const ProcessInput&, std::stop_token stop) -> Result<std::string> {
    gate->pass(stop);
    return fail(ErrorCode::cancelled, "stopped");
  };
  start();
  const auto location = created(3);
  patch(location, 0, "abc");
  ASSERT_TRUE(eventually([&] { return gate->somebody_waits(); }));
  EXPECT_EQ(call("DELETE", location).status, 204);
  EXPECT_TRUE(eventually([&] { return call("HEAD", location).status == 404; }));
  EXPECT_EQ(folders(), 0u);
}

TEST_F(UploadTest, ForgottenUploadsExpire) {
  options_.expire_after = std::chrono::seconds(1);
  std::atomic<bool> told = false;
  options_.on_change = [&](const UploadStatus& status) {
    if (status.state == UploadState::failed && status.error->code == ErrorCode::timeout) told = true;
  };
  start();
  const auto location = created(6);
  patch(location, 0, "abc");
  EXPECT_TRUE(eventually([&] { return told.load(); }));
  EXPECT_TRUE(eventually([&] { return folders() == 0; }));
  server_.reset();
}

TEST_F(UploadTest, AdmitDecidesAndFillsIn) {
  options_.admit = [](UploadInfo& info) -> Result<> {
    if (info.version == 2) return fail(ErrorCode::conflict, "version 2 is taken");
    info.cmdid = "01890a5d-ac96-774b-bcce-b302099a8057";
    return {};
  };
  start();
  auto refused = create(3, {}, 2);
  EXPECT_EQ(refused.status, 409);
  EXPECT_NE(body(refused).find("taken"), std::string::npos);
  const auto location = created(3);
  EXPECT_EQ(server_->find_by_command("01890a5d-ac96-774b-bcce-b302099a8057")->info.uid,
            location.substr(location.rfind('/') + 1));
  EXPECT_EQ(created(3), location);
}

TEST_F(UploadTest, ZerosBecomeHoles) {
  const std::string zeros(4 << 20, '\0');
  options_.processor = [](const ProcessInput& input, std::stop_token) -> Result<std::string> {
    return std::to_string(std::filesystem::file_size(input.data)) +
           (educloud::testing::slurp(input.data).find('x') == 8192 ? " x" : " ?");
  };
  start();
  std::string data = zeros;
  data[8192] = 'x';
  const auto location = created(data.size());
  EXPECT_EQ(patch(location, 0, data.substr(0, 5000)).status, 204);
  EXPECT_EQ(patch(location, 5000, data.substr(5000)).status, 204);
  ASSERT_TRUE(reaches(location, "done"));
  EXPECT_EQ(state(location)["receipt"], std::to_string(data.size()) + " x");
}

TEST(Metadata, GoesThereAndBack) {
  const std::map<std::string, std::string> all = {
      {"a", "x"}, {"b", "yz"}, {"c", std::string("\0\xff\n,", 4)}};
  EXPECT_EQ(*parse_metadata(format_metadata(all)), all);
  EXPECT_EQ(*parse_metadata("empty,other eA=="),
            (std::map<std::string, std::string>{{"empty", ""}, {"other", "x"}}));
  for (const char* bad : {"a x", "a eA=", "a eB==", "a e===", "a eA==,a eA==", ",", "a eA== x"}) {
    EXPECT_FALSE(parse_metadata(bad).has_value()) << bad;
  }
  EXPECT_FALSE(parse_metadata(std::string(5000, 'a')).has_value());
}

}  // namespace
}  // namespace educloud::transfer
