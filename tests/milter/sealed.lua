-- Header and body of a message to a recipient with a certificate are replaced.
dofile(COMMON)
local conn = open_connection()
envelope(conn, "<a@home.test>", "<alice@partner.test>")
header(conn)
expect(conn, SMFIR_CONTINUE, "end of header")
finish(conn, "hello\r\n")
expect_sealed(conn)
if mt.eom_check(conn, MT_RCPTDELETE, "<alice@partner.test>") then error("the recipient was deleted") end
mt.disconnect(conn)
