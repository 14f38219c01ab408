#include "common/http/client.hpp"
#include "common/sys/process.hpp"
#include "integration/cli_image/fixture.hpp"

namespace educloud::cli {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class Program : public CliImageTest {};

TEST_F(Program, ExportsARawFile) {
  const std::string disk = sample_disk(1);
  publish(1, disk);
  const std::string file = dir / "disk.raw";
  ASSERT_EQ(run({"image", "export", kImage, "-o", file, "--json"}), 0) << err;
  const auto document = json::parse(out);
  EXPECT_EQ(document["virtual_size_bytes"], disk.size());
  EXPECT_EQ(document["digest"], digests[1].hex());
  EXPECT_EQ(content(file), disk);
  EXPECT_FALSE(std::filesystem::exists(file + ".part"));
  EXPECT_EQ(run({"image", "export", kImage, "-o", file}), 5) << "it does not overwrite";
}

TEST_F(Program, ExportsAQcow2ThatHoldsTheSame) {
  const std::string disk = sample_disk(2, 8u << 20);
  publish(1, disk);
  const std::string file = dir / "disk.qcow2", raw = dir / "back.raw";
  ASSERT_EQ(run({"image", "export", kImage, "--version", "1", "-o", file, "--format", "qcow2"}), 0) << err;
  sys::ProcessOptions back;
  back.argv = {"qemu-img", "convert", "-f", "qcow2", "-O", "raw", file, raw};
  ASSERT_TRUE(sys::run_checked(back));
  EXPECT_TRUE(content(raw) == disk);
  EXPECT_FALSE(std::filesystem::exists(file + ".part"));
}

TEST_F(Program, AnExportThatIsCutContinues) {
  const std::string disk = sample_disk(3);
  publish(1, disk);
  source.forged = chunk::ChunkId::of(
      std::string_view(disk).substr(disk.size() / chunk::kChunkBytes * chunk::kChunkBytes));
  const std::string file = dir / "disk.raw";
  EXPECT_NE(run({"image", "export", kImage, "-o", file}), 0);
  EXPECT_FALSE(std::filesystem::exists(file));
  source.forged = {};
  ASSERT_EQ(run({"image", "export", kImage, "-o", file, "--json"}), 0) << err;
  EXPECT_GT(json::parse(out)["kept_bytes"], 0);
  EXPECT_TRUE(content(file) == disk);
}

TEST_F(Program, PrintsAUrlThatAnythingCanGet) {
  const std::string disk = sample_disk(4, 1u << 20);
  publish(1, disk);
  ASSERT_EQ(run({"image", "url", kImage}), 0) << err;
  const std::string url = out.substr(0, out.find('\n'));
  sys::ProcessOptions curl;
  curl.argv = {"curl", "-fsS", "-r", "65536-65599", url};
  const auto got = sys::run_checked(curl);
  if (!got && got.error().code == ErrorCode::not_found) {
    // No curl here: the same by our own client.
    auto parsed = http::Url::parse(url);
    ASSERT_TRUE(parsed);
    http::ClientRequest request;
    request.target = parsed->path;
    request.headers["Range"] = "bytes=65536-65599";
    parsed->path.clear();
    http::Client client(*parsed);
    const auto answer = client.send(request);
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->status, 206);
    EXPECT_EQ(answer->body, disk.substr(65536, 64));
    return;
  }
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(*got, disk.substr(65536, 64));
}

TEST_F(Program, TellsHowVersionsDiffer) {
  std::string disk = sample_disk(5);
  publish(1, disk);
  for (std::size_t i = 0; i < 10; ++i) disk[i * 4 * chunk::kChunkBytes + 7] = 'n';
  publish(2, disk);
  ASSERT_EQ(run({"image", "diff", kImage, "1", "2", "--json"}), 0) << err;
  const auto document = json::parse(out);
  EXPECT_EQ(document["changed_bytes"].get<std::uint64_t>() + document["added_bytes"].get<std::uint64_t>(),
            10u * chunk::kChunkBytes);
  EXPECT_EQ(document["removed_bytes"], 0);
  ASSERT_EQ(run({"image", "diff", kImage, "1", "2"}), 0);
  EXPECT_THAT(out, HasSubstr("changed"));
  EXPECT_EQ(run({"image", "diff", kImage, "1", "9"}), 4);
}

TEST_F(Program, AServersDatabaseDiskIsComparedToo) {
  const std::string disk = sample_disk(6);
  std::string other = disk;
  other[4 * chunk::kChunkBytes + 7] = 'n';
  publish(1, disk);
  publish(2, disk);
  publish(3, other);
  image_answer["database_imgid"] = kImage;  // the server knows no other
  version_items = {{{"version", 1}, {"database_version", 2}}, {{"version", 2}, {"database_version", 3}}};
  ASSERT_EQ(run({"image", "diff", kImage, "1", "2", "--json"}), 0) << err;
  const auto document = json::parse(out);
  EXPECT_EQ(document["changed_bytes"], 0);
  EXPECT_EQ(document["database"]["from"]["version"], 2);
  EXPECT_EQ(document["database"]["changed_bytes"].get<std::uint64_t>() +
                document["database"]["added_bytes"].get<std::uint64_t>(),
            chunk::kChunkBytes);
  ASSERT_EQ(run({"image", "diff", kImage, "1", "2"}), 0);
  EXPECT_THAT(out, HasSubstr("its database disk"));
  version_items[1]["database_version"] = 0;
  ASSERT_EQ(run({"image", "diff", kImage, "1", "2", "--json"}), 0) << err;
  EXPECT_TRUE(json::parse(out)["database"].is_null());
}

TEST_F(Program, SaysWhyNothingNeedsCompacting) {
  ASSERT_EQ(run({"image", "compact", kImage}), 0) << err;
  EXPECT_THAT(out, HasSubstr("2 versions with 3.0 MiB"));
  EXPECT_THAT(out, HasSubstr("educloud walrus stats"));
}

TEST_F(Program, PushTellsWhatBecameOfEachNode) {
  const auto item = [](const char* node, const char* result, const char* tid) {
    return json{{"node", node}, {"result", result}, {"tid", tid}, {"reason", ""}};
  };
  push_answer = {{"imgid", kImage}, {"version", 1}};
  push_answer["items"] = {item("nc1", "down", ""),
                          item("nc2", "started", "IMG0123abcd:IMG0123abcd:TMP00000001")};
  EXPECT_EQ(run({"image", "push", kImage, "--cluster", "cc1"}), 0);
  EXPECT_THAT(out, HasSubstr("nc1"));
  EXPECT_EQ(json::parse(pushed), json({{"cluster", "cc1"}}));
  push_answer["items"] = {item("nc1", "down", "")};
  EXPECT_EQ(run({"image", "push", kImage, "--version", "3", "--node", "nc1", "--node", "nc2", "--json"}), 6);
  EXPECT_EQ(json::parse(pushed), json({{"version", 3}, {"nodes", {"nc1", "nc2"}}}));
  EXPECT_EQ(json::parse(out)["items"][0]["result"], "down");
  EXPECT_EQ(run({"image", "push", kImage}), 2);
  EXPECT_EQ(run({"image", "push", kImage, "--cluster", "a", "--node", "b"}), 2);
}

}  // namespace
}  // namespace educloud::cli
