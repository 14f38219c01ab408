#include <gtest/gtest.h>

#include "common/http/server.hpp"
#include "common/image/digest.hpp"
#include "common/sys/process.hpp"
#include "common/transfer/upload_client.hpp"
#include "integration/transfer/cutting_proxy.hpp"
#include "unit/transfer/upload_fixture.hpp"

namespace educloud::transfer {
namespace {

/// UploadTest's server behind real HTTP.
class UploadOverHttp : public UploadTest {
 protected:
  void SetUp() override {
    UploadTest::SetUp();
    options_.processor = [](const ProcessInput& input, std::stop_token) {
      return image::sha256_file(input.data);
    };
    listen();
  }
  void listen() {
    http_.reset();
    start();
    http::ServerOptions options;
    options.port = port_;
    http_ = std::make_unique<http::Server>(options, router_);
    auto ok = http_->start();
    ASSERT_TRUE(ok.has_value()) << ok.error().message;
    port_ = http_->port();
  }
  void TearDown() override { http_.reset(); }

  UploadRequest upload(int port) {
    UploadRequest request{*http::Url::parse("http://127.0.0.1:" + std::to_string(port))};
    request.grant = upload_grant(1);
    request.imgid = kImage;
    request.version = 1;
    request.file = file();
    request.piece_bytes = 1 << 20;
    request.stall_timeout = std::chrono::seconds(30);
    return request;
  }
  /// 8 MiB that are not all zeros.
  std::filesystem::path file() {
    std::string data(8 << 20, '\0');
    for (std::size_t i = 0; i < data.size() / 2; ++i) data[i * 2] = static_cast<char>(i * 2654435761u >> 11);
    return dir_.write("file", data);
  }
  std::string curl(std::vector<std::string> words) {
    sys::ProcessOptions options;
    options.argv = {"curl", "-s", "-i", "--max-time", "20", "-H", "Tus-Resumable: 1.0.0"};
    options.argv.insert(options.argv.end(), words.begin(), words.end());
    auto out = sys::run_checked(options);
    EXPECT_TRUE(out.has_value()) << out.error().message;
    return out.value_or("");
  }

  int port_ = 0;
  std::unique_ptr<http::Server> http_;
};

std::string header(const std::string& answer, const std::string& name) {
  const auto at = answer.find(name + ": ");
  if (at == std::string::npos) return "";
  const auto from = at + name.size() + 2;
  return answer.substr(from, answer.find('\r', from) - from);
}

TEST_F(UploadOverHttp, WholeFileArrives) {
  std::vector<Progress> seen;
  auto receipt = upload_version(upload(port_), [&](const Progress& progress) { seen.push_back(progress); });
  ASSERT_TRUE(receipt.has_value()) << receipt.error().message;
  EXPECT_EQ(*receipt, *image::sha256_file(file()));
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.front().bytes_total, 8u << 20);
}

TEST_F(UploadOverHttp, CutConnectionsAreResumed) {
  CuttingProxy proxy(port_, {100, 700'000, 3'000'000, 1'500'000, 50});
  auto receipt = upload_version(upload(proxy.port()));
  ASSERT_TRUE(receipt.has_value()) << receipt.error().message;
  EXPECT_EQ(*receipt, *image::sha256_file(file()));
  EXPECT_GE(proxy.cuts(), 4);
}

TEST_F(UploadOverHttp, RestartedReceiverContinues) {
  std::atomic<bool> half = false;
  auto request = upload(port_);
  request.piece_bytes = 256 << 10;
  Result<std::string> receipt = "";
  std::jthread client([&] {
    receipt = upload_version(request, [&](const Progress& progress) {
      if (progress.bytes_done > 0) half = true;
    });
  });
  ASSERT_TRUE(eventually([&] { return half.load(); }));
  listen();  // same port, same folder
  client.join();
  ASSERT_TRUE(receipt.has_value()) << receipt.error().message;
  EXPECT_EQ(*receipt, *image::sha256_file(file()));
}

TEST_F(UploadOverHttp, LaterProcessFindsTheUploadAgain) {
  const auto owner = std::make_unique<std::stop_source>();  // on the stack GCC 12 warns without reason
  std::stop_source& stop = *owner;
  auto cut = upload_version(
      upload(port_), [&](const Progress&) { stop.request_stop(); }, stop.get_token());
  ASSERT_FALSE(cut.has_value());
  EXPECT_EQ(cut.error().code, ErrorCode::cancelled);
  ASSERT_EQ(server_->list().size(), 1u);
  EXPECT_TRUE(upload_version(upload(port_)).has_value());
  EXPECT_EQ(server_->list().size(), 1u);
  EXPECT_TRUE(upload_version(upload(port_)).has_value()) << "asking again gives the receipt again";
  EXPECT_TRUE(abandon_upload(upload(port_)).has_value());
  EXPECT_TRUE(server_->list().empty());
}

TEST_F(UploadOverHttp, NobodyThereIsGivenUp) {
  auto request = upload(port_);
  request.stall_timeout = std::chrono::seconds(1);
  http_.reset();
  auto refused = upload_version(request);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
  EXPECT_NE(refused.error().message.find("nothing moved"), std::string::npos) << refused.error().message;
}

TEST_F(UploadOverHttp, CurlSpeaksTus) {
  const std::string base = "http://127.0.0.1:" + std::to_string(port_);
  auto options = curl({"-X", "OPTIONS", base + "/uploads"});
  EXPECT_NE(options.find(" 204 "), std::string::npos) << options;
  EXPECT_EQ(header(options, "Tus-Extension"), "creation,termination");
  const std::string create_url = base + "/uploads?image=" + kImage + "&version=1&" + upload_grant(1, "user");
  auto created =
      curl({"-X", "POST", "-H", "Upload-Length: 11", "-H", "Upload-Metadata: filename d29ybGQ=", create_url});
  ASSERT_NE(created.find(" 201 "), std::string::npos) << created;
  const std::string url = base + header(created, "Location");
  auto patch = [&](const std::string& at, const std::string& data) {
    return curl({"-X", "PATCH", "-H", "Content-Type: application/offset+octet-stream", "-H",
                 "Upload-Offset: " + at, "--data-binary", data, url});
  };
  auto first = patch("0", "hello ");
  EXPECT_NE(first.find(" 204 "), std::string::npos) << first;
  EXPECT_EQ(header(first, "Upload-Offset"), "6");
  auto wrong = patch("0", "hello ");
  EXPECT_NE(wrong.find(" 409 "), std::string::npos) << wrong;
  EXPECT_EQ(header(wrong, "Tus-Resumable"), "1.0.0");
  auto head = curl({"-I", url});
  EXPECT_NE(head.find(" 200 "), std::string::npos) << head;
  EXPECT_EQ(header(head, "Upload-Offset"), "6");
  EXPECT_EQ(header(head, "Upload-Length"), "11");
  EXPECT_EQ(header(head, "Cache-Control"), "no-store");
  EXPECT_EQ(header(patch("6", "world"), "Upload-Offset"), "11");
  EXPECT_TRUE(eventually([&] { return curl({url}).find("\"done\"") != std::string::npos; }));
  EXPECT_NE(curl({"-X", "DELETE", url}).find(" 204 "), std::string::npos);
  EXPECT_NE(curl({"-I", url}).find(" 404 "), std::string::npos);
  EXPECT_NE(curl({"-X", "PUT", url}).find(" 405 "), std::string::npos);
}

}  // namespace
}  // namespace educloud::transfer
