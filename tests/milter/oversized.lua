-- Two megabytes in many packets that end in a fault: refused by name, and the connection serves the next message.
-- (miltertest crashes when a long body is replaced; test_dialogue.py has that.)
dofile(COMMON)
local conn = open_connection()
envelope(conn, "<a@home.test>", "<alice@partner.test>")
header(conn)
local packet = string.rep(string.rep("x", 990) .. "\r\n", 8)
for _ = 1, 250 do
	if mt.bodystring(conn, packet) ~= nil then error("body failed") end
end
finish(conn, "bare\nline end\r\n")
expect(conn, SMFIR_REPLYCODE, "end of message")
if not mt.eom_check(conn, MT_SMTPREPLY, "554", "5.6.0", "<alice@partner.test>: the message has an LF without CR") then
	error("wrong reply")
end
envelope(conn, "<a@home.test>", "<alice@partner.test>")
header(conn)
finish(conn, "hello\r\n")
expect_sealed(conn)
mt.disconnect(conn)
