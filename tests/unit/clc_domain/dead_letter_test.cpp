#include "clc/domain/dead_letter.hpp"

#include <gmock/gmock.h>

#include "common/msg/task_status.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

DeadLetter letter(std::string queue, std::string body, std::string reason = "rejected") {
  DeadLetter out;
  out.id = 12;
  out.queue = std::move(queue);
  out.reason = std::move(reason);
  out.sender = "cc-cc1";
  out.body = std::move(body);
  return out;
}

std::string cause(std::string queue, std::string body, std::string reason = "rejected") {
  const auto one = letter(std::move(queue), std::move(body), std::move(reason));
  return cause_of(one, one.body.size());
}

msg::Command command() {
  msg::Command out;
  out.op = "image/prepare";
  out.tid = "IMG00000001:IMG00000001:VD00000001";
  out.cmdid = "01890000-0000-7000-8000-000000000001";
  out.nid = "nc1";
  out.ccid = "cc1";
  out.source_grant = "node=nc1&expires=1&sig=c0ffee";
  out.runtime_option.emplace();
  out.runtime_option->memory_mib = 1024;
  out.runtime_option->display_password = "s3cret77";
  return out;
}

TEST(DeadLetterCause, NamesWhatIsWrongOrWhoMustBeLookedAt) {
  EXPECT_THAT(cause("clc_status_queue", "{"), HasSubstr("JSON"));
  EXPECT_THAT(cause("clc_status_queue", R"({"type":"taskstatus","phase":7})"), HasSubstr("phase"));
  EXPECT_THAT(cause("nc_cmd_queue.nc1", R"({"type":"cmd"})"), HasSubstr("op"));
  auto wrong = command();
  wrong.tid = "../../etc:x:y";
  EXPECT_THAT(cause("cc_cmd_queue.cc1", msg::serialize(wrong)), HasSubstr("../../etc"));
  const auto good = msg::serialize(command());
  EXPECT_THAT(cause("nc_cmd_queue.nc1", good), HasSubstr("refused by nc on nc1"));
  EXPECT_THAT(cause("nc_cmd_queue.nc1", good, "expired"), HasSubstr("is nc on nc1 up"));
  EXPECT_THAT(cause("cc_cmd_queue.cc1", good, "expired"), HasSubstr("is cc on cc1 up"));
  EXPECT_THAT(cause("walrus_cmd_queue", good, "expired"), HasSubstr("is walrus up"));
  EXPECT_THAT(cause("walrus_cmd_queue", good, "delivery_limit"), HasSubstr("its log says why"));
  EXPECT_THAT(cause("clc_heartbeat_queue", "x", "maxlen"), HasSubstr("was full"));
  EXPECT_THAT(cause("", "x", ""), HasSubstr("nobody says"));
  auto anonymous = letter("cc_cmd_queue.cc1", good);
  anonymous.sender = "";
  EXPECT_THAT(cause_of(anonymous, good.size()), HasSubstr("without a user id"));
  EXPECT_THAT(cause_of(letter("clc_status_queue", "xxx"), 10 << 20),
              HasSubstr("10485760 bytes, at most 65536"));
}

TEST(DeadLetterRetry, TakesCommandsAndStatusesOfOurOwn) {
  EXPECT_EQ(command_to_retry(letter("nc_cmd_queue.nc1", msg::serialize(command())))->cmdid, command().cmdid);
  EXPECT_EQ(command_to_retry(letter("nc_cmd_queue.nc1", "{")).error().code, ErrorCode::conflict);
  EXPECT_TRUE(check_status_to_retry(letter("clc_status_queue", "{}")));
  EXPECT_EQ(check_status_to_retry(letter("cc_status_queue", "{}")).error().code, ErrorCode::conflict);
  EXPECT_EQ(check_status_to_retry(letter("", "{}")).error().code, ErrorCode::conflict);
}

TEST(DeadLetterBody, IsShownWithoutSecretsAndControlCharacters) {
  const auto shown = readable_body(letter("nc_cmd_queue.nc1", msg::serialize(command())));
  EXPECT_THAT(shown, HasSubstr("image/prepare"));
  EXPECT_THAT(shown, testing::Not(HasSubstr("s3cret77")));
  EXPECT_THAT(shown, testing::Not(HasSubstr("c0ffee")));
  EXPECT_EQ(readable_body(letter("", "a\x1b[2J\xff\nb")), "a?[2J?\nb");
}

}  // namespace
}  // namespace educloud::clc
