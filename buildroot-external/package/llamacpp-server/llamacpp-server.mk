################################################################################
#
# llamacpp-server
#
################################################################################

LLAMACPP_SERVER_VERSION = 2026.10.11549
ifeq ($(BR2_aarch64),y)
LLAMACPP_SERVER_SOURCE = xllamacpp-$(LLAMACPP_SERVER_VERSION)-cp310-abi3-manylinux2014_aarch64.manylinux_2_17_aarch64.whl
LLAMACPP_SERVER_SITE = $(HAL_WHEELS_SITE)/30/d9/001e1d87b5499a131fd550aecbf9f898ca6abba59654a8e3b0b45993677a
else
LLAMACPP_SERVER_SOURCE = xllamacpp-$(LLAMACPP_SERVER_VERSION)-cp310-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl
LLAMACPP_SERVER_SITE = $(HAL_WHEELS_SITE)/a3/05/40940b570fc56b82c3cac94d218de29b06c9fe3dd5593dcf1edfad861868
endif
LLAMACPP_SERVER_LICENSE = MIT
LLAMACPP_SERVER_LICENSE_FILES = lib/xllamacpp-$(LLAMACPP_SERVER_VERSION).dist-info/licenses/LICENSE
LLAMACPP_SERVER_DEPENDENCIES = hal-os host-python3

define LLAMACPP_SERVER_EXTRACT_CMDS
	$(UNZIP) -q $(LLAMACPP_SERVER_DL_DIR)/$(LLAMACPP_SERVER_SOURCE) -d $(@D)/lib
	find $(@D)/lib -type f -exec chmod 0644 {} +
	find $(@D)/lib -type d -exec chmod 0755 {} +
endef

# Valid whatever time the image's files have (PEP 552).
define LLAMACPP_SERVER_BUILD_CMDS
	PYTHONHASHSEED=0 $(HOST_DIR)/bin/python3 -S -m compileall -q \
		--invalidation-mode unchecked-hash -s $(@D) -p /opt/llamacpp \
		$(@D)/lib
	$(INSTALL) -D -m 0755 \
		$(BR2_EXTERNAL_HAL_PATH)/services/llamacpp/launcher.py \
		$(@D)/bin/hal-llamacpp
endef

define LLAMACPP_SERVER_INSTALL_TARGET_CMDS
	mkdir -p $(TARGET_DIR)/opt/llamacpp
	$(call hal-install-rendered,etc/hal/engines/llamacpp.*)
endef

# As it came: what is in the target directory would be stripped.
define LLAMACPP_SERVER_INSTALL_IMAGE
	mkdir -p $(TARGET_DIR)/opt/llamacpp
	cp -a $(LLAMACPP_SERVER_DIR)/bin $(LLAMACPP_SERVER_DIR)/lib $(TARGET_DIR)/opt/llamacpp/
	chown -R 0:0 $(TARGET_DIR)/opt/llamacpp
endef
LLAMACPP_SERVER_ROOTFS_PRE_CMD_HOOKS += LLAMACPP_SERVER_INSTALL_IMAGE

define LLAMACPP_SERVER_INSTALL_INIT_SYSTEMD
	$(call hal-install-rendered,usr/lib/systemd/system/llamacpp.service)
endef

define LLAMACPP_SERVER_INSTALL_INIT_SYSV
	$(call hal-install-rendered, \
		etc/init.d/S96llamacpp usr/lib/hal/filters/llamacpp.*)
endef

define LLAMACPP_SERVER_USERS
	llamacpp 911 llamacpp 911 * - /usr/sbin/nologin - llamacpp engine
endef

define LLAMACPP_SERVER_PERMISSIONS
	/etc/hal/engines/llamacpp.env f 644 0 0 - - - - -
endef

$(eval $(generic-package))
