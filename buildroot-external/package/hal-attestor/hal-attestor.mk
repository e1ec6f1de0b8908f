################################################################################
#
# hal-attestor
#
################################################################################

HAL_ATTESTOR_VERSION = 0.1.0
HAL_ATTESTOR_SITE = $(BR2_EXTERNAL_HAL_PATH)/services
HAL_ATTESTOR_SITE_METHOD = local
HAL_ATTESTOR_LICENSE = Apache-2.0
HAL_ATTESTOR_LICENSE_FILES = LICENSE
HAL_ATTESTOR_DEPENDENCIES = hal-os hal-selector host-python3

# The licence is the whole project's and lies beside the services.
define HAL_ATTESTOR_COPY_LICENSE
	cp $(BR2_EXTERNAL_HAL_PATH)/LICENSE $(@D)/LICENSE
endef
HAL_ATTESTOR_POST_RSYNC_HOOKS += HAL_ATTESTOR_COPY_LICENSE

define HAL_ATTESTOR_INSTALL_TARGET_CMDS
	$(call hal-install-services,$(@D),attestor)
	$(call hal-install-rendered, \
		usr/bin/hal-attestor usr/lib/hal/attestor-access)
endef

define HAL_ATTESTOR_INSTALL_INIT_SYSTEMD
	$(call hal-install-rendered,usr/lib/systemd/system/hal-attestor.*)
endef

define HAL_ATTESTOR_INSTALL_INIT_SYSV
	$(call hal-install-rendered, \
		etc/init.d/S97hal-attestor usr/lib/hal/filters/hal-attestor.*)
endef

define HAL_ATTESTOR_USERS
	hal-attestor 904 hal-attestor 904 * - /usr/sbin/nologin - hal attestor
endef

define HAL_ATTESTOR_PERMISSIONS
	/usr/bin/hal-attestor f 755 0 0 - - - - -
	/usr/lib/hal/attestor-access f 755 0 0 - - - - -
	/usr/lib/hal/services/attestor r -1 0 0 - - - - -
endef

$(eval $(generic-package))
