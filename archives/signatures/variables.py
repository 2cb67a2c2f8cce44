"""Environment variables with secrets of whoever signs; no process that runs an archive's code gets
them."""

KEY_VARIABLE = "WHYBOX_SIGNING_KEY"
PASSPHRASE_VARIABLE = "WHYBOX_SIGNING_PASSPHRASE"
SECRET_VARIABLES = (KEY_VARIABLE, PASSPHRASE_VARIABLE)
