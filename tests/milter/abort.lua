-- A message is broken off after its body has begun; the next one on the connection isn't touched by it.
dofile(COMMON)
local conn = open_connection()
envelope(conn, "<a@home.test>", "<alice@partner.test>", "<carol@other.test>")
header(conn)
mt.bodystring(conn, "left over\r\n")
mt.abort(conn)
envelope(conn, "<a@home.test>", "<alice@partner.test>")
header(conn)
finish(conn, "hello\r\n")
expect_sealed(conn)
if mt.eom_check(conn, MT_RCPTDELETE, "<carol@other.test>") then error("a recipient of the message before") end
mt.disconnect(conn)
