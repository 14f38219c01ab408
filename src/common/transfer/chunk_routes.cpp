#include "common/transfer/chunk_routes_impl.hpp"

#include "common/obs/log.hpp"
#include "common/transfer/chunk_request.hpp"

namespace educloud::transfer {
namespace {

constexpr std::string_view kBytes = "application/octet-stream";
constexpr std::string_view kFrames = "application/vnd.educloud.frames";

http::Response with_bytes(const http::Request& request, std::string bytes, const std::string& digest) {
  auto head = http::range_head(request, bytes.size(), digest, kBytes);
  if (head.wants_body) {
    if (head.length != bytes.size()) bytes = bytes.substr(head.offset, head.length);
    head.response.body = std::move(bytes);
  }
  return std::move(head.response);
}

}  // namespace

http::Response refuse(const Error& error) {
  auto response = http::error_response(error);
  if (response.status == 503) response.headers["Retry-After"] = "1";
  return response;
}

ChunkRoutes::Impl::Impl(ChunkRouteOptions route_options, ChunkSource& chunk_source, ChunkSink* chunk_sink)
    : options(std::move(route_options)),
      source(chunk_source),
      sink(chunk_sink),
      workers({.name = "chunks",
               .threads = std::max<std::size_t>(options.max_readers, 1),
               .queue_limit = std::max<std::size_t>(options.max_readers, 1),
               .on_exception = [](std::string_view what) {
                 obs::error("chunks.worker_failed", {{"what", what}});
               }}) {}

Result<ChunkCaller> ChunkRoutes::Impl::check(const http::Request& request, std::string_view method) const {
  return check_caller(request, method, options.key, options.clock->wall_ms() / 1000);
}

/// A worker's place, given back whether its job runs, throws or is dropped.
class Slot {
 public:
  Slot(ChunkRoutes::Impl& impl, const std::stop_source& ending) : impl_(impl) {
    const std::lock_guard lock(impl_.mutex);
    granted_ = !impl_.stopped && impl_.running.size() < impl_.options.max_readers;
    if (granted_) entry_ = impl_.running.insert(impl_.running.end(), ending);
  }
  ~Slot() {
    if (!granted_) return;
    const std::lock_guard lock(impl_.mutex);
    impl_.running.erase(entry_);
  }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  bool granted() const { return granted_; }

 private:
  ChunkRoutes::Impl& impl_;
  bool granted_ = false;
  std::list<std::stop_source>::iterator entry_;
};

http::Response ChunkRoutes::Impl::later(const http::Request& request, ChunkCaller caller, http::Response head,
                                        Work work) {
  const Error full{ErrorCode::unavailable, "too many requests for chunks at once; try again"};
  std::stop_source ending;
  auto slot = std::make_shared<Slot>(*this, ending);
  if (!slot->granted()) return refuse(full);
  auto stream = std::make_shared<http::BodyStream>();
  stream->on_gone([ending]() mutable { ending.request_stop(); });
  auto job = std::make_shared<Answering>(Answering{request, std::move(caller), stream, ending.get_token()});
  // If the job is dropped, its stream ends with it and the client is cut.
  auto run = [slot = std::move(slot), job = std::move(job), work = std::move(work)](const std::stop_token&) {
    // A worker that waits for a slow client must hear of the end too.
    const std::stop_callback cut(job->stop, [&job] { job->stream->abort(); });
    work(*job);
  };
  if (auto queued = workers.submit(std::move(run)); !queued) return refuse(full);
  head.body = std::move(stream);
  return head;
}

void ChunkRoutes::Impl::stop_all() {
  std::list<std::stop_source> ending;
  {
    const std::lock_guard lock(mutex);
    stopped = true;
    ending = running;
  }
  for (auto& one : ending) one.request_stop();
  workers.stop();
}

void ChunkRoutes::Impl::send_manifest(Answering& job) {
  auto text = source.manifest(job.caller, job.stop);
  if (!text) return job.stream->answer(refuse(text.error()));
  const std::string digest = chunk::ChunkId::of(*text).hex();
  job.stream->answer(with_bytes(job.request, std::move(*text), digest));
}

void ChunkRoutes::Impl::send_chunk(Answering& job, const chunk::ChunkId& id) {
  auto reading = source.read(job.caller, {id}, job.stop);
  if (!reading) return job.stream->answer(refuse(reading.error()));
  auto frame = (*reading)->frame(0);
  if (!frame) return job.stream->answer(refuse(frame.error()));
  chunk::FrameDecoder decoder;
  auto bytes = unpack(*frame, id, decoder);
  if (!bytes) return job.stream->answer(refuse(bytes.error()));
  job.stream->answer(with_bytes(job.request, std::move(*bytes), id.hex()));
}

void ChunkRoutes::Impl::send_disk(Answering& job, const chunk::Manifest& disk, DiskPart part) {
  auto done = push_disk(source, job.caller, disk, part, *job.stream, job.stop);
  if (done) return job.stream->finish();
  obs::debug("chunks.disk_cut", {{"image", job.caller.imgid}, {"error", done.error().message}});
  job.stream->answer(refuse(done.error()));
}

void ChunkRoutes::Impl::send_frames(Answering& job, std::vector<chunk::ChunkId> ids) {
  const std::size_t count = ids.size();
  auto reading = source.read(job.caller, std::move(ids), job.stop);
  if (!reading) return job.stream->answer(refuse(reading.error()));
  for (std::size_t i = 0; i < count; ++i) {
    auto frame = (*reading)->frame(i);
    if (!frame) {
      obs::debug("chunks.fetch_failed",
                 {{"image", job.caller.imgid}, {"node", job.caller.node}, {"error", frame.error().message}});
      return job.stream->answer(refuse(frame.error()));
    }
    bool good = false;
    if (auto* slice = std::get_if<chunk::FrameSlice>(&*frame)) {
      good = job.stream->push(std::move(slice->file), slice->offset, slice->length);
    } else {
      good = job.stream->push(std::get<std::shared_ptr<const std::string>>(std::move(*frame)));
    }
    if (!good || job.stop.stop_requested()) return job.stream->abort();
  }
  job.stream->finish();
}

http::Response ChunkRoutes::Impl::serve_disk(const http::Request& request) {
  auto caller = check(request, "GET");
  if (!caller) return refuse(caller.error());
  // The size is in the manifest, and the head wants it: so this handler's answer is made in two steps.
  return later(request, *caller, {}, [this](Answering& job) {
    auto text = source.manifest(job.caller, job.stop);
    if (!text) return job.stream->answer(refuse(text.error()));
    auto disk = chunk::Manifest::decode(*text);
    if (!disk) return job.stream->answer(refuse(disk.error()));
    auto head = http::range_head(job.request, disk->disk_bytes, chunk::ChunkId::of(*text).hex(), kBytes);
    if (!head.wants_body) return job.stream->answer(std::move(head.response));
    head.response.headers["Content-Length"] = std::to_string(head.length);
    job.stream->head(std::move(head.response));
    if (job.request.method == "HEAD") return job.stream->finish();
    send_disk(job, *disk, {head.offset, head.length});
  });
}

http::Response ChunkRoutes::Impl::serve_frames(const http::Request& request) {
  auto caller = check(request, "GET");
  if (!caller) return refuse(caller.error());
  auto ids = chunk::decode_ids(request.body, kMaxIds);
  if (!ids) return refuse(ids.error());
  http::Response head;
  head.headers["Content-Type"] = kFrames;
  return later(request, *caller, std::move(head),
               [this, ids = std::move(*ids)](Answering& job) { send_frames(job, ids); });
}

void ChunkRoutes::Impl::add_read_routes(http::Router& router) {
  const std::string base(kVersionPattern);
  auto self = shared_from_this();
  router.add(
      {.method = "GET", .pattern = base + "/manifest", .handler = [self](const http::Request& request) {
         auto caller = self->check(request, "GET");
         if (!caller) return refuse(caller.error());
         return self->later(request, *caller, {},
                            [self = self.get()](Answering& job) { self->send_manifest(job); });
       }});
  router.add({.method = "GET", .pattern = base + "/raw", .handler = [self](const http::Request& request) {
                return self->serve_disk(request);
              }});
  router.add({.method = "GET",
              .pattern = base + "/chunks/{digest}",
              .handler = [self](const http::Request& request) {
                auto caller = self->check(request, "GET");
                if (!caller) return refuse(caller.error());
                auto id = chunk::ChunkId::parse(request.param("digest"));
                if (!id) return refuse(id.error());
                if (id->is_hole()) return refuse({ErrorCode::not_found, "a hole is no chunk", "digest"});
                return self->later(request, *caller, {}, [self = self.get(), id = *id](Answering& job) {
                  self->send_chunk(job, id);
                });
              }});
  router.add({.method = "POST",
              .pattern = base + "/chunks:fetch",
              .handler = [self](const http::Request& request) { return self->serve_frames(request); },
              .body_limit = kMaxIds * chunk::ChunkId::kBytes});
}

ChunkRoutes::ChunkRoutes(ChunkRouteOptions options, ChunkSource& source, ChunkSink* sink)
    : impl_(std::make_shared<Impl>(std::move(options), source, sink)) {}

ChunkRoutes::~ChunkRoutes() {
  stop();
}

void ChunkRoutes::add_routes(http::Router& router) {
  impl_->add_read_routes(router);
  if (impl_->sink != nullptr) impl_->add_write_routes(router);
}

void ChunkRoutes::stop() {
  impl_->stop_all();
}

}  // namespace educloud::transfer
