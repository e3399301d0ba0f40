-- A rule that holds: quarantined, not changed.
dofile(COMMON)
local conn = open_connection()
envelope(conn, "<a@home.test>", "<x@held.test>")
header(conn)
finish(conn, "hello\r\n")
expect(conn, SMFIR_ACCEPT, "end of message")
if not mt.eom_check(conn, MT_QUARANTINE) then error("not quarantined") end
if mt.eom_check(conn, MT_BODYCHANGE) then error("the body was changed") end
mt.disconnect(conn)
