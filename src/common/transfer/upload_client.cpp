#include "common/transfer/upload_client.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>

#include "common/sys/file.hpp"
#include "common/transfer/retry.hpp"
#include "common/transfer/upload_record.hpp"

namespace educloud::transfer {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kFirstPoll{100};
constexpr milliseconds kLongestPoll{1000};
constexpr std::chrono::seconds kProgressInterval{1};

std::optional<std::uint64_t> parse_count(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, errc] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || errc != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Error error_of(const http::ClientResponse& answer) {
  auto ok = answer.ok();
  return ok ? Error{ErrorCode::internal, "unexpected answer " + std::to_string(answer.status)} : ok.error();
}

/// One upload from this side: where it is, and what to do next.
class Upload {
 public:
  Upload(const UploadRequest& request, const OnProgress& on_progress, std::stop_token stop)
      : request_(request),
        on_progress_(on_progress),
        stop_(std::move(stop)),
        client_(request.base, request.client),
        retry_(request.timeout, request.stall_timeout) {}

  Result<std::string> run();
  Result<> open_file();
  /// Makes or finds the upload at the receiver. False: to be tried again (it has waited).
  Result<bool> create();
  Result<> abandon();

 private:
  Result<bool> ask_offset();
  Result<bool> send_piece();
  /// The receipt; none: still working.
  Result<std::optional<std::string>> poll();
  /// After an answer or error that may pass: waits; final ones are returned.
  Result<bool> again(const Result<http::ClientResponse>& answer);
  void tell(const std::string& prompt, std::uint64_t done, std::uint64_t total, bool always);

  const UploadRequest& request_;
  const OnProgress& on_progress_;
  std::stop_token stop_;
  http::Client client_;
  Retry retry_;
  sys::Fd file_;
  std::uint64_t size_ = 0;
  std::string location_;                 ///< empty: not created yet
  std::optional<std::uint64_t> offset_;  ///< none: must be asked
  std::string prompt_;
  steady_clock::time_point last_told_{};
};

void Upload::tell(const std::string& prompt, std::uint64_t done, std::uint64_t total, bool always) {
  const auto now = steady_clock::now();
  if (!on_progress_ || (!always && now - last_told_ < kProgressInterval)) return;
  last_told_ = now;
  on_progress_({prompt, done, total});
}

Result<> Upload::open_file() {
  auto file = sys::open_file(request_.file, O_RDONLY);
  if (!file) return fail(file.error());
  struct stat status {};
  if (::fstat(file->get(), &status) != 0) return fail(errno_error("stat " + request_.file.string(), errno));
  if (!S_ISREG(status.st_mode) || status.st_size == 0) {
    return fail(ErrorCode::invalid_argument, request_.file.string() + " is empty or not a file");
  }
  file_ = std::move(*file);
  size_ = static_cast<std::uint64_t>(status.st_size);
  return {};
}

Result<bool> Upload::again(const Result<http::ClientResponse>& answer) {
  if (!answer && answer.error().code == ErrorCode::cancelled) return fail(answer.error());
  const Error reason = answer ? error_of(*answer) : answer.error();
  if (answer && !is_worth_repeating(answer->status)) return fail(reason);
  milliseconds at_least{0};
  if (answer)
    at_least = std::chrono::seconds(
        std::min<std::uint64_t>(parse_count(answer->header("Retry-After")).value_or(0), 10));
  if (auto ok = retry_.wait(reason, stop_, at_least); !ok) return fail(ok.error());
  return false;
}

Result<bool> Upload::create() {
  http::ClientRequest ask;
  ask.method = "POST";
  ask.target = "/uploads?image=" + request_.imgid + "&version=" + std::to_string(request_.version) + "&" +
               request_.grant;
  ask.headers["Tus-Resumable"] = "1.0.0";
  ask.headers["Upload-Length"] = std::to_string(size_);
  ask.headers["Upload-Metadata"] = format_metadata({{"cmdid", request_.cmdid},
                                                    {"digest", request_.digest},
                                                    {"format", request_.format},
                                                    {"parent", request_.parent},
                                                    {"filename", request_.file.filename().string()}});
  auto answer = client_.send(ask, stop_);
  if (!answer || answer->status != 201) return again(answer);
  const std::string_view location = answer->header("Location");
  const auto uid = location.substr(std::min(location.size(), location.rfind('/') + 1));
  if (!is_upload_uid(uid)) return fail(ErrorCode::internal, "the receiver named no upload in its Location");
  location_ = "/uploads/" + std::string(uid);
  return true;
}

Result<bool> Upload::ask_offset() {
  http::ClientRequest ask;
  ask.method = "HEAD";
  ask.target = location_;
  ask.headers["Tus-Resumable"] = "1.0.0";
  auto answer = client_.send(ask, stop_);
  if (answer && answer->status == 404) {
    location_.clear();  // the receiver forgot it: begin anew
    retry_.progressed();
    return false;
  }
  if (!answer || answer->status != 200) return again(answer);
  const auto offset = parse_count(answer->header("Upload-Offset"));
  if (!offset || *offset > size_)
    return fail(ErrorCode::internal, "the receiver told no usable Upload-Offset");
  offset_ = *offset;
  return true;
}

Result<bool> Upload::send_piece() {
  const std::uint64_t length = std::min(request_.piece_bytes, size_ - *offset_);
  std::uint64_t at = *offset_;
  http::ClientRequest ask;
  ask.method = "PATCH";
  ask.target = location_;
  ask.headers["Tus-Resumable"] = "1.0.0";
  ask.headers["Content-Type"] = "application/offset+octet-stream";
  ask.headers["Upload-Offset"] = std::to_string(at);
  std::optional<Error> read_error;
  const auto read = [&](std::span<char> buffer) -> Result<std::size_t> {
    const ssize_t got = ::pread(file_.get(), buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (got <= 0) {
      read_error = got < 0 ? errno_error("read " + request_.file.string(), errno)
                           : Error{ErrorCode::corrupt, request_.file.string() + " became shorter meanwhile"};
      return fail(*read_error);
    }
    at += static_cast<std::uint64_t>(got);
    tell("uploading", at, size_, false);
    return static_cast<std::size_t>(got);
  };
  auto answer = client_.upload(ask, length, read, stop_);
  if (read_error) return fail(*read_error);
  const std::uint64_t before = *offset_;
  offset_.reset();  // unknown until the receiver has said it
  if (answer && answer->status == 204) {
    offset_ = parse_count(answer->header("Upload-Offset"));
    if (offset_ && *offset_ > before) retry_.progressed();
    return true;
  }
  // 404: removed or lost, 409: another idea of the offset; both are found out by asking for it.
  const bool ask_first = answer && (answer->status == 404 || answer->status == 409);
  if (!ask_first) return again(answer);
  if (auto ok = retry_.wait(error_of(*answer), stop_); !ok) return fail(ok.error());
  return false;
}

Result<std::optional<std::string>> Upload::poll() {
  http::ClientRequest ask;
  ask.target = location_;
  auto answer = client_.send(ask, stop_);
  if (answer && answer->status == 404) {
    location_.clear();
    offset_.reset();
    return std::nullopt;
  }
  if (!answer || answer->status != 200) {
    auto ok = again(answer);
    if (!ok) return fail(ok.error());
    return std::nullopt;
  }
  auto json = answer->json();
  if (!json) return fail(json.error());
  const auto text = [&](const char* key) {
    const auto at = json->find(key);
    return at != json->end() && at->is_string() ? at->get<std::string>() : std::string{};
  };
  const auto number = [&](const char* key) {
    const auto at = json->find(key);
    return at != json->end() && at->is_number_unsigned() ? at->get<std::uint64_t>() : 0;
  };
  const std::string state = text("state");
  if (state == "done") return text("receipt");
  if (state == "failed")
    return fail(error_from_json(json->value("error", nlohmann::json{}), ErrorCode::internal));
  if (state == "receiving") offset_.reset();
  retry_.progressed();  // it is alive; the whole has its own deadline
  const std::string prompt = text("prompt");
  tell(prompt, number("bytes_done"), number("bytes_total"), prompt != prompt_);
  prompt_ = prompt;
  return std::nullopt;
}

Result<std::string> Upload::run() {
  if (auto ok = open_file(); !ok) return fail(ok.error());
  milliseconds pause = kFirstPoll;
  for (;;) {
    if (stop_.stop_requested()) return fail(ErrorCode::cancelled, "stopped");
    Result<bool> step = true;
    if (location_.empty()) {
      step = create();
    } else if (!offset_) {
      step = ask_offset();
    } else if (*offset_ < size_) {
      step = send_piece();
      if (step && offset_ && *offset_ == size_) tell("uploading", size_, size_, true);
    } else {
      auto receipt = poll();
      if (!receipt) return fail(receipt.error());
      if (*receipt) return **receipt;
      if (auto ok = retry_.check(); !ok) return fail(ok.error());
      sleep_for(pause, stop_);
      pause = std::min(pause * 2, kLongestPoll);
    }
    if (!step) return fail(step.error());
  }
}

Result<> Upload::abandon() {
  for (;;) {
    if (location_.empty()) {
      auto made = create();
      // Refused: then there is nothing of ours either.
      if (!made && !is_retryable(made.error().code) && made.error().code != ErrorCode::cancelled) return {};
      if (!made) return fail(made.error());
      continue;
    }
    http::ClientRequest ask;
    ask.method = "DELETE";
    ask.target = location_;
    ask.headers["Tus-Resumable"] = "1.0.0";
    auto answer = client_.send(ask, stop_);
    if (answer && (answer->status == 204 || answer->status == 404)) return {};
    if (auto ok = again(answer); !ok) return fail(ok.error());
  }
}

}  // namespace

Result<std::string> upload_version(const UploadRequest& request, const OnProgress& on_progress,
                                   std::stop_token stop) {
  return Upload(request, on_progress, std::move(stop)).run();
}

Result<> abandon_upload(const UploadRequest& request, std::stop_token stop) {
  const OnProgress silent;
  Upload upload(request, silent, std::move(stop));
  if (auto ok = upload.open_file(); !ok) return ok;
  return upload.abandon();
}

}  // namespace educloud::transfer
