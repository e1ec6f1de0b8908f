################################################################################
#
# ollama
#
################################################################################

OLLAMA_VERSION = 0.32.15
OLLAMA_SOURCE = ollama-linux-amd64.tar.zst
OLLAMA_SITE = https://github.com/ollama/ollama/releases/download/v$(OLLAMA_VERSION)
OLLAMA_LICENSE = MIT, others
OLLAMA_DEPENDENCIES = hal-os
# The archive has bin/ and lib/ at its top.
OLLAMA_STRIP_COMPONENTS = 0
# Libraries for GPUs, which are not opened where there is none.
OLLAMA_BIN_ARCH_EXCLUDE = /opt/ollama

define OLLAMA_INSTALL_TARGET_CMDS
	mkdir -p $(TARGET_DIR)/opt/ollama
	test -x $(@D)/bin/ollama
	$(call hal-install-rendered,etc/hal/engines/ollama.*)
endef

# As it came: what is in the target directory would be stripped.
define OLLAMA_INSTALL_IMAGE
	mkdir -p $(TARGET_DIR)/opt/ollama
	cp -a $(OLLAMA_DIR)/bin $(OLLAMA_DIR)/lib $(TARGET_DIR)/opt/ollama/
	chown -R 0:0 $(TARGET_DIR)/opt/ollama
endef
OLLAMA_ROOTFS_PRE_CMD_HOOKS += OLLAMA_INSTALL_IMAGE

define OLLAMA_INSTALL_INIT_SYSTEMD
	$(call hal-install-rendered,usr/lib/systemd/system/ollama.service)
endef

define OLLAMA_INSTALL_INIT_SYSV
	$(call hal-install-rendered, \
		etc/init.d/S96ollama usr/lib/hal/filters/ollama.*)
endef

define OLLAMA_USERS
	ollama 913 ollama 913 * - /usr/sbin/nologin - ollama engine
endef

define OLLAMA_PERMISSIONS
	/etc/hal/engines/ollama.env f 644 0 0 - - - - -
endef

$(eval $(generic-package))
