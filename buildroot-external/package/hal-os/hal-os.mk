################################################################################
#
# hal-os
#
################################################################################

HAL_OS_LICENSE = Apache-2.0
HAL_OS_DEPENDENCIES = hal-haproxy python3

# Launchers leave out `site`, which costs a second where the CPU is emulated,
# and name the directory of modules themselves: the same one on every base.
define HAL_OS_INSTALL_TARGET_CMDS
	mkdir -p $(TARGET_DIR)/usr/lib/python3 $(TARGET_DIR)/opt \
		$(TARGET_DIR)/srv/models $(TARGET_DIR)/var/lib/hal \
		$(TARGET_DIR)/etc/hal
	ln -snf ../python$(PYTHON3_VERSION_MAJOR)/site-packages \
		$(TARGET_DIR)/usr/lib/python3/dist-packages
endef

# Nothing starts but what the appliance names.
define HAL_OS_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(HAL_OS_PKGDIR)/00-hal.preset \
		$(TARGET_DIR)/usr/lib/systemd/system-preset/00-hal.preset
endef

define HAL_OS_PERMISSIONS
	/var/lib/hal d 755 0 0 - - - - -
	/srv/models d 755 0 0 - - - - -
endef

$(eval $(generic-package))
