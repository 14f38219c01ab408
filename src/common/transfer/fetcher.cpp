#include "common/transfer/fetcher.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>

#include "common/base/bytes.hpp"
#include "common/image/copy.hpp"
#include "common/image/digest.hpp"
#include "common/image/inspector.hpp"
#include "common/image/version_store.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/retry.hpp"
#include "common/transfer/sparse_writer.hpp"
#include "common/transfer/upload_record.hpp"

namespace educloud::transfer {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

constexpr std::chrono::seconds kProgressInterval{1};
constexpr std::chrono::seconds kLongestRelayPause{10};

std::uint64_t parse_count(std::string_view text) {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

/// The file being fetched: what is on disk already, its hash so far, and where the next byte goes.
class Download {
 public:
  Download(image::VersionStore& store, const FetchRequest& request, fs::path part,
           const OnProgress& on_progress, std::stop_token stop)
      : store_(store),
        request_(request),
        part_(std::move(part)),
        on_progress_(on_progress),
        stop_(std::move(stop)),
        total_(request.size_bytes) {}

  Result<> run();

 private:
  enum class Next { again, complete };

  Result<> open_part();
  Result<> rehash(std::uint64_t size);
  Result<> start_over();
  Result<Next> attempt(http::Client& client, Retry& retry);
  Result<> on_head(const http::ClientResponse& head);
  Result<> check_room(std::uint64_t total) const;
  Result<Next> on_refusal(const http::ClientResponse& answer, Retry& retry);
  Result<> publish();
  void tell(std::string_view prompt, std::uint64_t done, std::uint64_t total, bool always);

  image::VersionStore& store_;
  const FetchRequest& request_;
  const fs::path part_;
  const OnProgress& on_progress_;
  std::stop_token stop_;
  std::uint64_t total_;
  std::optional<SparseWriter> writer_;
  image::Sha256 hash_;
  std::uint64_t relay_bytes_ = 0;
  steady_clock::time_point last_told_{};
  std::optional<Error> fatal_;  ///< why a transfer was ended by us, if repeating cannot help
};

void Download::tell(std::string_view prompt, std::uint64_t done, std::uint64_t total, bool always) {
  const auto now = steady_clock::now();
  if (!on_progress_ || (!always && now - last_told_ < kProgressInterval)) return;
  last_told_ = now;
  on_progress_({std::string(prompt), done, total});
}

Result<> Download::rehash(std::uint64_t size) {
  auto fd = sys::open_file(part_, O_RDONLY);
  if (!fd) return fail(fd.error());
  std::vector<char> buffer(1 << 20);
  std::uint64_t at = 0;
  auto ok =
      image::for_each_data_run(fd->get(), size, [&](std::uint64_t offset, std::uint64_t length) -> Result<> {
        hash_.update_zeros(offset - at);
        for (at = offset; at < offset + length;) {
          if (stop_.stop_requested()) return fail(ErrorCode::cancelled, "stopped");
          const auto want = std::min<std::uint64_t>(buffer.size(), offset + length - at);
          const ssize_t got = ::pread(fd->get(), buffer.data(), want, static_cast<off_t>(at));
          if (got <= 0) return fail(errno_error("read " + part_.string(), errno));
          hash_.update({buffer.data(), static_cast<std::size_t>(got)});
          at += static_cast<std::uint64_t>(got);
        }
        return {};
      });
  if (ok) hash_.update_zeros(size - at);
  return ok;
}

Result<> Download::open_part() {
  auto writer = SparseWriter::open(part_);
  if (!writer) return fail(writer.error());
  writer_ = std::move(*writer);
  if (total_ != 0 && writer_->offset() > total_) return start_over();
  return rehash(writer_->offset());
}

Result<> Download::start_over() {
  writer_.reset();
  hash_ = image::Sha256{};
  std::error_code error;
  fs::remove(part_, error);
  if (error) return fail(ErrorCode::internal, "remove " + part_.string() + ": " + error.message());
  return open_part();
}

Result<> Download::check_room(std::uint64_t total) const {
  auto space = sys::disk_space(part_.parent_path());
  const std::uint64_t missing = total - std::min(total, writer_->offset());
  if (!space || space->free_bytes >= missing) return {};
  return fail(ErrorCode::exhausted, "the disk of " + store_.prefix().string() + " has " +
                                        to_string(Bytes{space->free_bytes}) + " free, image " +
                                        request_.imgid + " version " + std::to_string(request_.version) +
                                        " needs " + to_string(Bytes{missing}) + " more: make room there");
}

/// Is it the file we want, from the byte we want? Anything else ends the transfer before its first byte.
Result<> Download::on_head(const http::ClientResponse& head) {
  if (head.status >= 300) return {};
  const auto refuse = [&](ErrorCode code, std::string message) -> Result<> {
    fatal_ = Error{code, std::move(message)};
    return fail(*fatal_);
  };
  const std::string_view etag = head.header("ETag");
  if (!etag.empty() && etag != "\"" + request_.digest + "\"") {
    return refuse(ErrorCode::corrupt, request_.base.authority() + " has other bytes as image " +
                                          request_.imgid + " version " + std::to_string(request_.version));
  }
  std::uint64_t total = parse_count(head.header("Content-Length"));
  if (head.status == 206) {
    // "bytes 100-199/200"
    const std::string_view range = head.header("Content-Range");
    const auto first = parse_count(range.substr(std::min<std::size_t>(range.size(), 6)));
    if (!range.starts_with("bytes ") || first != writer_->offset()) {
      return refuse(ErrorCode::corrupt, "the source answered another range than was asked for");
    }
    total = parse_count(range.substr(std::min(range.size(), range.find('/') + 1)));
  } else if (writer_->offset() != 0) {
    if (auto ok = start_over(); !ok) return refuse(ok.error().code, ok.error().message);
  }
  if (total_ == 0) total_ = total;
  if (total != total_ || total == 0) {
    return refuse(ErrorCode::corrupt,
                  "the source has " + std::to_string(total) + " bytes instead of " + std::to_string(total_));
  }
  if (auto room = check_room(total_); !room) return refuse(room.error().code, room.error().message);
  return {};
}

Result<Download::Next> Download::on_refusal(const http::ClientResponse& answer, Retry& retry) {
  const auto json = nlohmann::json::parse(answer.body, nullptr, false);
  const std::string state = json.is_object() ? json.value("state", nlohmann::json{}).dump() : "";
  if (answer.status == 416 && writer_->offset() > 0) {
    if (total_ != 0 && writer_->offset() == total_) return Next::complete;
    if (auto ok = start_over(); !ok) return fail(ok.error());
    return Next::again;
  }
  Error reason = answer.ok()
                     ? Error{ErrorCode::internal, "unexpected answer " + std::to_string(answer.status)}
                     : answer.ok().error();
  if (state == "\"failed\"") {
    reason = error_from_json(json.value("error", nlohmann::json{}), ErrorCode::unavailable);
    if (!is_retryable(reason.code)) return fail(reason);
  } else if (state == "\"fetching\"") {
    const auto number = [&](const char* key) {
      const auto at = json.find(key);
      return at != json.end() && at->is_number_unsigned() ? at->get<std::uint64_t>() : 0;
    };
    const std::uint64_t done = number("bytes_done");
    if (done > relay_bytes_) retry.progressed();
    relay_bytes_ = std::max(relay_bytes_, done);
    tell("waiting for the relay", done, number("bytes_total"), false);
    reason = {ErrorCode::unavailable, request_.base.authority() + " is still fetching the image itself"};
  } else if (!is_worth_repeating(answer.status)) {
    return fail(reason, "fetch of " + request_.imgid + " version " + std::to_string(request_.version) +
                            " from " + request_.base.authority());
  }
  const std::chrono::seconds asked{parse_count(answer.header("Retry-After"))};
  if (auto ok = retry.wait(reason, stop_, std::min(asked, kLongestRelayPause)); !ok) return fail(ok.error());
  return Next::again;
}

Result<Download::Next> Download::attempt(http::Client& client, Retry& retry) {
  if (total_ != 0 && writer_->offset() == total_) return Next::complete;
  http::ClientRequest ask;
  ask.target = raw_path(request_.imgid, request_.version) + "?" + request_.grant;
  if (writer_->offset() > 0) ask.headers["Range"] = "bytes=" + std::to_string(writer_->offset()) + "-";
  const auto on_data = [&](std::span<const char> data) -> Result<> {
    const std::uint64_t before = writer_->offset();
    if (before + data.size() > total_) {
      fatal_ = Error{ErrorCode::corrupt, "the source sent more bytes than it announced"};
      return fail(*fatal_);
    }
    if (auto ok = writer_->append(data); !ok) {
      fatal_ = ok.error();
      return ok;
    }
    hash_.update({data.data(), data.size()});
    retry.progressed();
    tell("downloading", writer_->offset(), total_, false);
    return {};
  };
  auto answer = client.download(
      ask, [&](const http::ClientResponse& head) { return on_head(head); }, on_data, stop_);
  if (fatal_) return fail(*fatal_);
  if (stop_.stop_requested()) return fail(ErrorCode::cancelled, "stopped");
  if (!answer) {
    if (answer.error().code == ErrorCode::cancelled) return fail(answer.error());
    if (auto ok = retry.wait(answer.error(), stop_); !ok) return fail(ok.error());
    return Next::again;
  }
  if (answer->status >= 300) return on_refusal(*answer, retry);
  return writer_->offset() == total_ ? Next::complete : Next::again;
}

Result<> Download::publish() {
  if (auto ok = writer_->sync(); !ok) return ok;
  writer_.reset();
  const std::string digest = hash_.finish();
  const auto drop = [&](Error error) -> Result<> {
    std::error_code ignored;
    fs::remove(part_, ignored);
    return fail(std::move(error));
  };
  if (digest != request_.digest) {
    return drop({ErrorCode::corrupt, "image " + request_.imgid + " version " +
                                         std::to_string(request_.version) + " from " +
                                         request_.base.authority() + " has digest " + digest +
                                         " instead of " + request_.digest + "; it was thrown away"});
  }
  auto format = image::parse_format(request_.format);
  if (!format) return fail(format.error());
  auto header = image::inspect_file(part_, {}, *format);
  if (!header) return drop(header.error());
  image::VersionInfo info;
  info.image = request_.imgid;
  info.version = request_.version;
  info.digest = digest;
  info.size_bytes = total_;
  info.virtual_size_bytes = header->virtual_size_bytes;
  info.format = request_.format;
  return store_.publish(part_, info);
}

Result<> Download::run() {
  if (auto ok = open_part(); !ok) return ok;
  if (writer_->offset() > 0) {
    obs::info("fetch.resumed",
              {{"imgid", request_.imgid}, {"version", request_.version}, {"bytes", writer_->offset()}});
  }
  http::Client client(request_.base, request_.client);
  Retry retry(request_.timeout, request_.stall_timeout);
  for (;;) {
    auto next = attempt(client, retry);
    if (!next) {
      // What was received stays in staging, synced as far as possible: the next call continues there.
      const bool useless = next.error().code == ErrorCode::corrupt || !writer_ || writer_->offset() == 0;
      if (writer_ && !useless) (void)writer_->sync();
      std::error_code ignored;
      if (useless) fs::remove(part_, ignored);
      return fail(next.error());
    }
    if (*next == Next::complete) break;
  }
  tell("downloading", total_, total_, true);
  return publish();
}

}  // namespace

Result<> fetch_version(image::VersionStore& store, const FetchRequest& request, const OnProgress& on_progress,
                       std::stop_token stop) {
  if (!image::is_sha256_hex(request.digest)) {
    return fail(ErrorCode::invalid_argument, "a fetch needs the SHA-256 the file must have", "digest");
  }
  auto have = store.find(request.imgid, request.version);
  if (have && have->digest == request.digest) return {};
  if (have) {
    return fail(ErrorCode::conflict, "image " + request.imgid + " version " +
                                         std::to_string(request.version) + " is here already with digest " +
                                         have->digest);
  }
  if (have.error().code != ErrorCode::not_found) return fail(have.error());
  // The digest is in the name: a part of other bytes is never continued.
  auto part = store.staging("fetch-" + request.imgid + "-" + std::to_string(request.version) + "-" +
                            request.digest.substr(0, 16) + ".part");
  if (!part) return fail(part.error());
  return Download(store, request, *part, on_progress, std::move(stop)).run();
}

}  // namespace educloud::transfer
