-- Two Content-Type fields, and a body with a bare LF: refused with code and rule, nothing changed.
dofile(COMMON)
local conn = open_connection()
envelope(conn, "<a@home.test>", "<alice@partner.test>")
mt.header(conn, "Content-Type", " text/html")
header(conn)
finish(conn, "hello\r\n")
expect(conn, SMFIR_REPLYCODE, "end of message")
if not mt.eom_check(conn, MT_SMTPREPLY, "554", "5.6.0",
	"<alice@partner.test>: a header field that must come once comes twice: Content-Type") then error("wrong reply") end
if mt.eom_check(conn, MT_BODYCHANGE) then error("the body was changed") end
envelope(conn, "<a@home.test>", "<alice@partner.test>")
header(conn)
finish(conn, "bare\nline end\r\n")
expect(conn, SMFIR_REPLYCODE, "end of message")
if not mt.eom_check(conn, MT_SMTPREPLY, "554", "5.6.0", "<alice@partner.test>: the message has an LF without CR") then
	error("wrong reply")
end
mt.disconnect(conn)
