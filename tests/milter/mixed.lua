-- One recipient sealed in place, one in clear by a copy: only that one is taken out, with the string as given.
dofile(COMMON)
local conn = open_connection()
envelope(conn, "<a@home.test>", "<alice@partner.test>", "<Carol@Other.TEST>")
header(conn)
finish(conn, "hello\r\n")
expect_sealed(conn)
if not mt.eom_check(conn, MT_RCPTDELETE, "<Carol@Other.TEST>") then error("carol was not taken out") end
if mt.eom_check(conn, MT_RCPTDELETE, "<alice@partner.test>") then error("alice was taken out") end
mt.disconnect(conn)
