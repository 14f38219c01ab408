#include "common/bus/amqp_connection_impl.hpp"

#include <amqp_framing.h>
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#include <sys/time.h>

#include "common/sys/file.hpp"

namespace educloud::bus {
namespace {

constexpr int kFrameBytes = 128 * 1024;

timeval to_timeval(std::chrono::milliseconds time) {
  timeval out{};
  out.tv_sec = static_cast<time_t>(time.count() / 1000);
  out.tv_usec = static_cast<suseconds_t>(time.count() % 1000 * 1000);
  return out;
}

tl::unexpected<Error> library_error(std::string_view what, int status) {
  const bool late = status == AMQP_STATUS_TIMEOUT || status == AMQP_STATUS_HEARTBEAT_TIMEOUT;
  return fail(late ? ErrorCode::timeout : ErrorCode::unavailable,
              std::string(what) + ": " + amqp_error_string2(status));
}

tl::unexpected<Error> closed_by_broker(std::string_view what, const amqp_method_t& method) {
  int code = 0;
  std::string text;
  if (method.id == AMQP_CONNECTION_CLOSE_METHOD) {
    const auto& close = *static_cast<amqp_connection_close_t*>(method.decoded);
    code = close.reply_code;
    text = to_string(close.reply_text);
  } else if (method.id == AMQP_CHANNEL_CLOSE_METHOD) {
    const auto& close = *static_cast<amqp_channel_close_t*>(method.decoded);
    code = close.reply_code;
    text = to_string(close.reply_text);
  }
  ErrorCode error = ErrorCode::unavailable;
  if (code == AMQP_ACCESS_REFUSED || code == AMQP_NOT_ALLOWED) error = ErrorCode::permission_denied;
  if (code == AMQP_NOT_FOUND) error = ErrorCode::not_found;
  return fail(error, std::string(what) + ": the broker says " + std::to_string(code) + " " + text);
}

Result<> check_reply(std::string_view what, const amqp_rpc_reply_t& reply) {
  switch (reply.reply_type) {
    case AMQP_RESPONSE_NORMAL: return {};
    case AMQP_RESPONSE_LIBRARY_EXCEPTION: return library_error(what, reply.library_error);
    case AMQP_RESPONSE_SERVER_EXCEPTION: return closed_by_broker(what, reply.reply);
    case AMQP_RESPONSE_NONE: break;
  }
  return fail(ErrorCode::unavailable, std::string(what) + ": the broker closed the connection");
}

amqp_table_entry_t flag(const char* name) {
  amqp_table_entry_t entry{};
  entry.key = amqp_cstring_bytes(name);
  entry.value.kind = AMQP_FIELD_KIND_BOOLEAN;
  entry.value.value.boolean = 1;
  return entry;
}

}  // namespace

std::string to_string(amqp_bytes_t bytes) {
  return bytes.len == 0 ? std::string() : std::string(static_cast<const char*>(bytes.bytes), bytes.len);
}

amqp_bytes_t bytes_of(const std::string& text) {
  amqp_bytes_t out;
  out.len = text.size();
  out.bytes = const_cast<char*>(text.data());  // the library's type has no const; it only reads
  return out;
}

Result<std::unique_ptr<AmqpConnection>> AmqpConnection::open(const RabbitOptions& options,
                                                             const std::string& role) {
  std::unique_ptr<AmqpConnection> connection(new AmqpConnection);
  auto ok = connection->connect(options, role);
  if (!ok) {
    return fail(ok.error(),
                "broker " + options.host + ":" + std::to_string(options.port) + " as " + options.user);
  }
  return connection;
}

AmqpConnection::~AmqpConnection() {
  if (state_ != nullptr) amqp_destroy_connection(state_);
}

Result<> AmqpConnection::open_socket(const RabbitOptions& options) {
  amqp_socket_t* socket = nullptr;
  if (options.tls_ca_file.empty()) {
    socket = amqp_tcp_socket_new(state_);
  } else {
    socket = amqp_ssl_socket_new(state_);
    if (socket != nullptr) {
      amqp_ssl_socket_set_verify_peer(socket, 1);
      amqp_ssl_socket_set_verify_hostname(socket, 1);
      amqp_ssl_socket_set_ssl_versions(socket, AMQP_TLSv1_2, AMQP_TLSvLATEST);
      if (const int status = amqp_ssl_socket_set_cacert(socket, options.tls_ca_file.c_str());
          status != AMQP_STATUS_OK) {
        return library_error("cannot use the CA certificate " + options.tls_ca_file, status);
      }
    }
  }
  if (socket == nullptr) return fail(ErrorCode::internal, "cannot make a socket");
  timeval timeout = to_timeval(options.connect_timeout);
  const int status = amqp_socket_open_noblock(socket, options.host.c_str(), options.port, &timeout);
  if (status != AMQP_STATUS_OK) return library_error("connect", status);
  return {};
}

Result<> AmqpConnection::connect(const RabbitOptions& options, const std::string& role) {
  auto password = sys::read_secret_file(options.password_file);
  if (!password) return fail(password.error(), "password");
  state_ = amqp_new_connection();
  if (state_ == nullptr) return fail(ErrorCode::exhausted, "out of memory");
  const timeval limit = to_timeval(options.connect_timeout);
  amqp_set_handshake_timeout(state_, &limit);
  amqp_set_rpc_timeout(state_, &limit);
  auto opened = open_socket(options);
  if (!opened) return opened;

  // Without these the broker neither tells us that it blocks nor that a consumer was cancelled.
  amqp_table_entry_t capabilities[] = {flag("connection.blocked"), flag("consumer_cancel_notify"),
                                       flag("basic.nack"), flag("publisher_confirms")};
  const std::string name = options.connection_name + " " + role;
  amqp_table_entry_t entries[2] = {};
  entries[0].key = amqp_cstring_bytes("connection_name");
  entries[0].value.kind = AMQP_FIELD_KIND_UTF8;
  entries[0].value.value.bytes = bytes_of(name);
  entries[1].key = amqp_cstring_bytes("capabilities");
  entries[1].value.kind = AMQP_FIELD_KIND_TABLE;
  entries[1].value.value.table = {static_cast<int>(std::size(capabilities)), capabilities};
  const amqp_table_t properties = {2, entries};
  const auto reply = amqp_login_with_properties(
      state_, options.vhost.c_str(), 0, kFrameBytes, static_cast<int>(options.heartbeat.count()), &properties,
      AMQP_SASL_METHOD_PLAIN, options.user.c_str(), password->c_str());
  return check_reply("login", reply);
}

Result<> AmqpConnection::open_channel(amqp_channel_t channel) {
  amqp_channel_open(state_, channel);
  return last_reply("channel.open");
}

Result<> AmqpConnection::last_reply(std::string_view call) {
  return check_reply(call, amqp_get_rpc_reply(state_));
}

Result<std::optional<amqp_frame_t>> AmqpConnection::poll_frame() {
  amqp_frame_t frame;
  const timeval now{};
  const int status = amqp_simple_wait_frame_noblock(state_, &frame, &now);
  if (status == AMQP_STATUS_TIMEOUT) return std::nullopt;
  if (status != AMQP_STATUS_OK) return library_error("connection lost", status);
  if (frame.frame_type == AMQP_FRAME_METHOD && (frame.payload.method.id == AMQP_CONNECTION_CLOSE_METHOD ||
                                                frame.payload.method.id == AMQP_CHANNEL_CLOSE_METHOD)) {
    return closed_by_broker("closed", frame.payload.method);
  }
  return frame;
}

void AmqpConnection::release(amqp_channel_t channel) {
  amqp_maybe_release_buffers_on_channel(state_, channel);
}

void AmqpConnection::close() {
  const timeval limit{1, 0};
  amqp_set_rpc_timeout(state_, &limit);
  amqp_connection_close(state_, AMQP_REPLY_SUCCESS);
}

}  // namespace educloud::bus
