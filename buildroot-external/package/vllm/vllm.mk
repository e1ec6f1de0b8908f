################################################################################
#
# vllm
#
################################################################################

VLLM_VERSION = 0.32.0
VLLM_SOURCE = pack.erofs
VLLM_SITE = $(call qstrip,$(BR2_PACKAGE_VLLM_PACK))
VLLM_LICENSE = Apache-2.0, others
VLLM_DEPENDENCIES = hal-os host-erofs-utils
VLLM_BIN_ARCH_EXCLUDE = /opt/vllm

ifeq ($(BR2_PACKAGE_VLLM)$(BR_BUILDING),yy)
ifeq ($(VLLM_SITE),)
$(error BR2_PACKAGE_VLLM_PACK is empty: say where the engine pack is that `hal pack export` wrote)
endif
endif

# An EROFS image with its hash tree behind it.
define VLLM_EXTRACT_CMDS
	$(HOST_DIR)/bin/fsck.erofs --extract=$(@D)/pack --force \
		$(VLLM_DL_DIR)/$(VLLM_SOURCE)
endef

define VLLM_INSTALL_TARGET_CMDS
	mkdir -p $(TARGET_DIR)/opt/vllm
	test -x $(@D)/pack/bin/vllm
	$(call hal-install-rendered,etc/hal/engines/vllm.*)
endef

# As it came: what is in the target directory would be stripped.
define VLLM_INSTALL_IMAGE
	mkdir -p $(TARGET_DIR)/opt/vllm
	cp -a $(VLLM_DIR)/pack/. $(TARGET_DIR)/opt/vllm/
	chown -R 0:0 $(TARGET_DIR)/opt/vllm
endef
VLLM_ROOTFS_PRE_CMD_HOOKS += VLLM_INSTALL_IMAGE

define VLLM_INSTALL_INIT_SYSTEMD
	$(call hal-install-rendered,usr/lib/systemd/system/vllm.service)
endef

define VLLM_INSTALL_INIT_SYSV
	$(call hal-install-rendered, \
		etc/init.d/S96vllm usr/lib/hal/filters/vllm.*)
endef

define VLLM_USERS
	vllm 912 vllm 912 * - /usr/sbin/nologin - vllm engine
endef

define VLLM_PERMISSIONS
	/etc/hal/engines/vllm.env f 644 0 0 - - - - -
endef

$(eval $(generic-package))
